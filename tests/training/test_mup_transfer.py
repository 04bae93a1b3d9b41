"""What a few steps change does not depend on the width: the coordinate check of arXiv:2203.03466."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental.compilation_cache import compilation_cache

from harness.config.schema.data import DataConfig
from harness.config.schema.finetune import FinetuneConfig
from harness.config.schema.run import (
    ComputeConfig,
    Config,
    MatchBy,
    ModelConfig,
    ModuleConfig,
    OptimizerConfig,
    ScaleConfig,
)
from harness.core.cache.cache_dir import cache_dir
from harness.core.errors import UserError
from harness.models import Model, TextModel, build
from harness.models.layers import Rotary
from harness.models.sockets.side_inputs import SideInputs
from harness.models.text.decoder import Decoder
from harness.models.text.layer import Carry, apply_layer
from harness.training.optimizers import parameter_group
from harness.training.optimizers.matrices import hidden_matrices
from harness.training.optimizers.optimizer_registry import Optimizer
from harness.training.optimizers.run_optimizer import RunOptimizer
from harness.training.step import TrainState, make_step
from harness.training.step_inputs import StepInputs
from harness.training.trainable.trainable_model import Params, TrainableModel

BASE, WIDTHS = 32, (64, 128, 256)
SEEDS, STEPS, RATE = range(4), 4, 0.002
VOCABULARY, LENGTH, BATCH = 64, 32, 16
NEAR = {"adamw": 0.15, "muon": 0.08, "lion": 0.15}
"""How near to none a slope is under the rule. Muon's is held tighter: with Adam's rates it would be -.17."""
OPTIMIZERS = {name: OptimizerConfig(name, RATE) for name in NEAR}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in OPTIMIZERS if name != "adamw"]
EACH = ["adamw", *SLOW]
CACHED = {
    "jax_enable_compilation_cache": True,
    "jax_compilation_cache_dir": str(cache_dir("test-programs")),
    "jax_persistent_cache_min_compile_time_secs": 0.0,
}
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Compiles in half the time; nothing here asks for speed."""


@pytest.fixture(autouse=True, scope="module")
def without_compilation_cache():
    """With it, in this module: nothing here is serialised again, so programs are compiled once a machine."""
    before = {name: getattr(jax.config, name) for name in CACHED}
    for values in (CACHED, before):
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        if values is CACHED:
            yield


def model(width: int, base: int | None, compute: ComputeConfig | None = None, **changes: Any) -> Model:
    shape: dict[str, Any] = {"width": width, "ffn": 2 * width, "layers": 2, "head_width": 8}
    shape |= {"match": MatchBy.none, "base_width": base, **changes}
    config = Config(
        model=ModelConfig(**shape),
        scale=ScaleConfig("tiny", 1, 1, BATCH),
        compute=compute or ComputeConfig(),
        data=DataConfig(sequence_length=LENGTH),
    )
    return build(config, VOCABULARY)


def run_optimizer_of(built: Model, name: str = "adamw") -> RunOptimizer:
    return TrainableModel(built, FinetuneConfig(), None, {}).build_optimizer(OPTIMIZERS[name])


def optimizer_of(built: Model, name: str = "adamw") -> Optimizer:
    """At a learning rate of -1, so that its updates are the descent directions."""
    return run_optimizer_of(built, name).at_step(StepInputs(-1.0))


def lowered_step(built: Model, name: str = "adamw") -> jax.stages.Lowered:
    descent = run_optimizer_of(built, name)
    params: Any = {
        path: jax.ShapeDtypeStruct(spec.shape, jnp.float32) for path, spec in built.stored_specs.items()
    }
    state = TrainState(params, jax.eval_shape(descent.init, params))
    tokens = jax.ShapeDtypeStruct((1, BATCH, LENGTH + 1), jnp.int32)
    step = make_step(built, OPTIMIZERS[name], descent)
    return jax.jit(step).lower(state, tokens, StepInputs(jax.ShapeDtypeStruct((), jnp.float32)))


@functools.cache
def batches() -> np.ndarray:
    """Sequences of a Markov chain whose rows are sparse, [STEPS + 1, 1, B, T + 1]: there is much to learn."""
    rng = np.random.default_rng(0)
    rows_VV = rng.dirichlet(np.full(VOCABULARY, 0.05), VOCABULARY).cumsum(axis=1)
    tokens = np.zeros((STEPS + 1, 1, BATCH, LENGTH + 1), np.int32)
    tokens[..., 0] = rng.integers(VOCABULARY, size=tokens.shape[:-1])
    for t in range(LENGTH):
        passed = rows_VV[tokens[..., t]] < rng.random(tokens.shape[:-1])[..., None]
        tokens[..., t + 1] = np.minimum(passed.sum(axis=-1), VOCABULARY - 1)
    return tokens


def inside(built: Model, params: Params) -> dict[str, jax.Array]:
    """What is read in, the residual stream after the last layer, and the logits."""
    tokens_BT = jnp.asarray(batches()[-1, 0, :, :-1])
    leaves = [params[path] for path in built.stored_specs]
    state = jax.tree.unflatten(jax.tree.structure(built._abstract), leaves)
    decoder = nnx.merge(built._graph, state)
    rotary = Rotary.table(LENGTH, decoder.head_width, decoder.rope_base)
    read_BTD = x_BTD = decoder.embed_rows(tokens_BT)
    for layer in decoder.layers:
        (x_BTD, _), _ = apply_layer(layer, Carry(x_BTD, {}), SideInputs(rotary))
    assert isinstance(built, TextModel)
    return {"read": read_BTD, "stream": x_BTD, "logits": built.logits(params, tokens_BT)}


@functools.cache
def changes(optimizer: str, width: int, base: int | None) -> dict[str, float]:
    """Size of what STEPS steps change: mean |change|, over seeds, of what is read in and of the stream.

    Of the logits, the part that all seeds have in common, as a root mean square. The rest is what
    the random start says in other words, and vanishes with the width under the rule by right.
    """
    built = model(width, base)
    step = lowered_step(built, optimizer).compile(QUICK)
    look = jax.jit(functools.partial(inside, built)).lower(built.init(0)).compile(QUICK)
    start = jax.jit(optimizer_of(built, optimizer).init)
    found = []
    for seed in SEEDS:
        params: Any = built.init(seed)
        state, before = TrainState(params, start(params)), look(params)
        for tokens in batches()[:STEPS]:
            state, _ = step(state, tokens, StepInputs(np.float32(RATE)))
        found.append(jax.tree.map(lambda a, b: np.asarray(a - b), look(state.params), before))
    logits = [change["logits"] - change["logits"].mean(axis=-1, keepdims=True) for change in found]
    common = np.mean([np.mean(one * other) for one, other in itertools.combinations(logits, 2)])
    sizes = {name: float(np.mean([np.abs(c[name]).mean() for c in found])) for name in ("read", "stream")}
    return sizes | {"logits": float(np.sqrt(common))}


def slope(optimizer: str, name: str, base: int | None, widths: tuple[int, ...]) -> float:
    """Of ln(change) on ln(width)."""
    sizes = [changes(optimizer, width, base)[name] for width in widths]
    return float(np.polyfit(np.log(widths), np.log(sizes), 1)[0])


@pytest.mark.parametrize("optimizer", EACH)
@pytest.mark.parametrize("name", ["read", "stream", "logits"])
def test_with_the_rule_changes_are_of_one_size_at_every_width(optimizer, name):
    assert abs(slope(optimizer, name, BASE, WIDTHS)) < NEAR[optimizer]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", ["read", "stream", "logits"])
def test_with_the_rule_they_are_at_a_fourth_width_too(optimizer, name):
    assert abs(slope(optimizer, name, BASE, (*WIDTHS, 512))) < NEAR[optimizer]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", ["stream", "logits"])
def test_without_it_they_grow_with_the_width(optimizer, name):
    assert slope(optimizer, name, None, (WIDTHS[0], WIDTHS[-1])) > 0.3


@pytest.mark.parametrize("tied", [True, False])
def test_at_the_base_width_the_program_is_the_one_without_the_rule(tied, monkeypatch):
    def program(base: int | None) -> str:
        return lowered_step(model(64, base, layers=1, tie_embeddings=tied)).as_text()

    plain, same, other = program(None), program(64), program(32)
    monkeypatch.setattr(Decoder, "_scale", lambda self, x_BTD, factor: x_BTD)
    monkeypatch.setattr(parameter_group, "_scale_per_path", lambda factors: [])
    assert plain == same == program(None)
    assert plain != other


def test_the_rates_of_muon_by_path():
    """sqrt(1/4) where both sides are four times the base's, 1/4 where the number of columns is fixed."""
    built = model(128, 32, tie_embeddings=False, attention=ModuleConfig("gqa", {"kv_heads": 2}))
    rates = {path.removeprefix("layers.1."): m.rate for path, m in hidden_matrices(built).items()}
    assert rates["attention.query"] == rates["attention.output"] == 0.5
    assert rates["feedforward.gate"] == rates["feedforward.down"] == 0.5
    assert rates["attention.key"] == rates["attention.value"] == 0.25
    assert {m.rate for m in hidden_matrices(model(128, None)).values()} == {1.0}


def test_the_rule_by_path():
    built = model(128, 32, tie_embeddings=False, attention=ModuleConfig("gqa", {"kv_heads": 2}))
    scales = built.learning_rate_scales
    assert scales.keys() == built.stored_specs.keys()
    assert scales["embedding"] == scales["head"] == 0.5
    assert {scale for path, scale in scales.items() if path.endswith("gain")} == {1.0}
    matrices = [path for path, spec in built.stored_specs.items() if len(spec.shape) > 1]
    assert {scales[path] for path in matrices if path.startswith("layers.")} == {0.25}
    assert set(model(128, None).learning_rate_scales.values()) == {1.0}


def test_scanned_layers_learn_as_unrolled_ones():
    loop, scan = model(64, 32), model(64, 32, ComputeConfig(scan_layers=True))
    rng = np.random.default_rng(1)
    grads = {path: rng.normal(size=spec.shape).astype(np.float32) for path, spec in loop.param_specs.items()}

    def updates(built: Model) -> dict[str, np.ndarray]:
        descent, params = optimizer_of(built), built.init(0)
        first = jax.jit(lambda grads: descent.update(grads, descent.init(params), params)[0])
        return built.unstack(first(built.stack(grads)))

    one, other = updates(loop), updates(scan)
    assert scan.stacking.repeats == 2
    assert all(np.array_equal(one[path], other[path]) for path in loop.param_specs)


def test_weight_decay_takes_the_same_share_at_every_width():
    built = model(128, 32)
    descent, params = optimizer_of(built), built.init(0)
    still = jax.tree.map(np.zeros_like, params)
    updates = jax.jit(lambda grads: descent.update(grads, descent.init(params), params)[0])(still)
    share = np.float32(OPTIMIZERS["adamw"].weight_decay)
    for path in ("embedding", "layers.0.attention.query", "layers.1.feedforward.down"):
        np.testing.assert_array_equal(updates[path], share * params[path])


@pytest.mark.parametrize("base", [0, -32])
def test_a_base_that_is_no_width_is_refused(base):
    with pytest.raises(UserError, match=rf"model.base_width={base} must be at least 1"):
        model(64, base)
