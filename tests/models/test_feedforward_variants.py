"""Feed-forward layers in turn, experts on a latent, and experts that choose, against loops over tokens."""

import jax
import numpy as np
import pytest

from harness.config.schema.run import ModuleConfig
from harness.core.errors import UserError
from tests.models import reference
from tests.models.reference import sigmoid, swiglu
from tests.models.reference_experts import mixture
from tests.models.test_attention import scrambled

MIX = {"name": "moe", "options": {"experts": 4}}
DENSE = {"name": "swiglu"}


def logits_of(small, tokens, name, options, feedforward, layers=1):
    model = small(feedforward=ModuleConfig(name, options), layers=layers)
    params, batch = scrambled(model.init(0)), tokens(2, 16)
    actual = jax.jit(model.logits)(params, batch)
    expected = [reference.logits(params, row, [reference.softmax()] * layers, feedforward) for row in batch]
    return actual, np.stack(expected)


def on_latent(x_TD, w):
    """Output of two of four experts on a latent, token by token."""
    out_TD = np.zeros_like(x_TD)
    for at, x in enumerate(x_TD):
        score = sigmoid(x @ w["router"])
        chosen = np.argsort(-(score + w["bias"]))[:2]
        latent = x @ w["compress"]
        for expert in chosen:
            own = {name: w[name][expert] for name in ("gate", "up", "down")}
            out_TD[at] += (score[expert] / score[chosen].sum() * swiglu(latent, own)) @ w["expand"]
    return out_TD


def by_choice(x_TD, w):
    """Output of experts that take the half of the tokens with their highest scores."""
    logits_TE = x_TD @ w["router"]
    score_TE = np.exp(logits_TE) / np.exp(logits_TE).sum(1, keepdims=True)
    out_TD = np.zeros_like(x_TD)
    for expert in range(score_TE.shape[1]):
        own = {name: w[name][expert] for name in ("gate", "up", "down")}
        for at in np.argsort(-score_TE[:, expert])[: len(x_TD) // 2]:
            out_TD[at] += score_TE[at, expert] * swiglu(x_TD[at], own)
    return out_TD


@pytest.mark.parametrize(
    ("name", "options", "feedforward"),
    [
        ("latent_experts", {"experts": 4}, on_latent),
        ("expert_choice", {"experts": 4, "sees_future": True}, by_choice),
    ],
)
def test_logits_equal_a_loop_over_tokens(small, tokens, name, options, feedforward):
    actual, expected = logits_of(small, tokens, name, options, feedforward)
    np.testing.assert_allclose(actual, expected, atol=2e-5)


def test_a_pattern_is_its_layers_and_moves_the_bias_of_those_with_experts(small, tokens):
    def either(x_TD, w):
        return mixture(2)(x_TD, w) if "router" in w else swiglu(x_TD, w)

    options = {"first": [DENSE], "cycle": [MIX, DENSE]}
    actual, expected = logits_of(small, tokens, "pattern", options, either, layers=4)
    np.testing.assert_allclose(actual, expected, atol=2e-5)
    model = small(feedforward=ModuleConfig("pattern", options), layers=4)
    with_router = [layer for layer in range(4) if f"layers.{layer}.feedforward.router" in model.param_specs]
    assert with_router == [1, 3]
    params = model.init(0)
    _, parts = jax.jit(lambda p: model.loss(p, tokens(2, 17), 0.0))(params)
    after = model.update_after_step(params, parts["signals"])
    changed = {path for path in params if not np.array_equal(after[path], params[path])}
    assert changed == {"layers.1.feedforward.bias", "layers.3.feedforward.bias"}


def test_without_first_layers_a_pattern_repeats_and_with_them_it_does_not(small):
    cycle = [MIX, DENSE]
    in_turn = small(feedforward=ModuleConfig("pattern", {"cycle": cycle}), layers=4)
    after_dense = small(feedforward=ModuleConfig("pattern", {"first": [DENSE], "cycle": cycle}), layers=4)
    assert in_turn.spec.period == 2
    assert after_dense.spec.period > 4


OTHER = {"name": "moe", "options": {"experts": 8}}


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("pattern", {"cycle": [MIX, OTHER]}, "lists moe and moe, whose routers differ"),
        ("pattern", {"cycle": [DENSE], "first": [{"name": "pattern", "options": {"cycle": [DENSE, DENSE]}}]},
         "first[0].name=pattern is a pattern itself"),
        ("expert_choice", {}, "sees_future=False refuses experts that choose among all tokens"),
        ("expert_choice", {"sees_future": True, "balance": "bias"}, "Choose none"),
        ("latent_experts", {"latent_share": 0.0}, "latent_share=0.0 must be above 0"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(small, name, options, sentence):
    with pytest.raises(UserError) as refusal:
        small(feedforward=ModuleConfig(name, options))
    assert sentence in str(refusal.value)


def test_a_choice_of_all_tokens_sees_later_ones(small, tokens):
    options = {"experts": 4, "sees_future": True}
    model = small(feedforward=ModuleConfig("expert_choice", options), layers=1)
    params, batch = scrambled(model.init(0)), tokens(1, 17)
    other = np.concatenate([batch[:, :9], 15 - batch[:, 9:]], axis=1)
    losses = jax.jit(model.token_losses)
    assert np.abs(losses(params, batch)[:, :8] - losses(params, other)[:, :8]).max() > 1e-4
