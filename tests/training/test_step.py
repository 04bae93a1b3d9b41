from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from harness.config.compose import compose
from harness.models import TextModel, build
from harness.training.step import TrainState, make_step
from harness.training.step_inputs import StepInputs
from harness.training.trainable.trainable_model import make_trainable
from tests.training.runs import TINY

CONFIG = compose(list(TINY))
MODEL = cast(TextModel, build(CONFIG, 257))
TOKENS_BT1 = np.random.default_rng(0).integers(0, 257, (8, 33), dtype=np.int32)
DECAY = {path: spec.deviation > 0 for path, spec in MODEL.param_specs.items()}


def one_step(microbatches: int, z_loss: float = 0.0, model: TextModel = MODEL, tokens_BT1=TOKENS_BT1):
    optimizer = make_trainable(CONFIG, model).build_optimizer(CONFIG.optimizer)
    params = jax.tree.map(jnp.asarray, model.init(0))
    tokens = jnp.asarray(tokens_BT1.reshape(microbatches, -1, 33))
    step = jax.jit(make_step(model, CONFIG.optimizer, optimizer, z_loss=z_loss))
    return step(TrainState(params, optimizer.init(params)), tokens, StepInputs(0.01))


def largest_mean_gap(one, other):
    """Adam divides by the gradient's size: a last bit of a tiny one can turn an entry, hence means."""
    return max(float(np.mean(np.abs(np.asarray(one[path]) - np.asarray(other[path])))) for path in one)


def test_micro_batches_equal_the_full_batch():
    (full, full_metrics), (split, split_metrics) = one_step(1), one_step(4)
    np.testing.assert_allclose(full_metrics, split_metrics, rtol=2e-6)
    assert largest_mean_gap(full.params, split.params) < 1e-5


def test_micro_batches_of_padded_rows_count_by_their_targets():
    """A micro-batch has 3 to 64 targets. The plain mean of their means is another loss."""
    model = cast(TextModel, build(compose([*TINY, "data.packing=best_fit"]), 257, 256))
    used_B = np.array([33, 33, 2, 3, 20, 9, 33, 5])
    rows = np.where(np.arange(33) < used_B[:, None], TOKENS_BT1, -1)
    (full, full_metrics), (split, split_metrics) = (one_step(m, 0.1, model, rows) for m in (1, 4))
    np.testing.assert_allclose(full_metrics, split_metrics, rtol=2e-6)
    assert largest_mean_gap(full.params, split.params) < 1e-5
    params = jax.tree.map(jnp.asarray, MODEL.init(0))
    losses_BT = np.asarray(MODEL.token_losses(params, jnp.maximum(rows, 0)))
    np.testing.assert_allclose(full_metrics[0], losses_BT[rows[:, 1:] >= 0].mean(), rtol=1e-6)


def test_the_step_is_optax_adamw_behind_a_clip():
    state, metrics = one_step(1)
    params = jax.tree.map(jnp.asarray, MODEL.init(0))
    config = CONFIG.optimizer
    reference = optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(0.01, config.b1, config.b2, config.epsilon, weight_decay=config.weight_decay, mask=DECAY),
    )

    @jax.jit
    def plain(params):
        loss, grads = jax.value_and_grad(lambda p: jnp.mean(MODEL.token_losses(p, jnp.asarray(TOKENS_BT1))))(
            params
        )
        updates, _ = reference.update(grads, reference.init(params), params)
        return loss, optax.tree.norm(grads), optax.apply_updates(params, updates)

    loss, norm, expected = plain(params)
    np.testing.assert_allclose(metrics, [loss, norm], rtol=1e-5)
    assert largest_mean_gap(state.params, expected) < 1e-5


@pytest.mark.slow
def test_z_loss_pulls_the_partition_towards_one():
    plain, _ = one_step(1, z_loss=0.0)
    pulled, _ = one_step(1, z_loss=1.0)

    @jax.jit
    def partition(state):
        logits = MODEL.logits(state.params, jnp.asarray(TOKENS_BT1[:, :-1]))
        return jnp.mean(jnp.square(jax.nn.logsumexp(logits, axis=-1)))

    assert partition(pulled) < partition(plain)
