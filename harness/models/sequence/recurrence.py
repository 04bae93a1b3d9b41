"""A recurrence over time: a state per sequence and head that each token updates and reads."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from harness.parallel.sharding.axis_rules import out_sharding
from harness.parallel.sharding.sequence_parallel import mark_varying

StepFunction = Callable[..., tuple[Array, Array]]
"""Function of the state and one token's inputs. It returns the new state and an output."""


def recur(step: StepFunction, shape: tuple[int, ...], document_BT: Array | None, *inputs_BTH: Array) -> Array:
    """Return the outputs [B, T, H, ...] of `step(state_BH, *inputs_BH) -> (state_BH, output_BH)`, token by
    token. The state is float32 [B, H, *shape], zero at the start of a sequence and of each document."""
    B, T, H = inputs_BTH[0].shape[:3]
    split = out_sharding("batch", "heads", *(None,) * len(shape))
    start_BH = mark_varying(jnp.zeros((B, H, *shape), jnp.float32, out_sharding=split))

    def turn(state_BH: Array, inputs: tuple[Array, ...]) -> tuple[Array, Array]:
        is_first_B, *inputs_BH = inputs
        is_first_BH = jnp.expand_dims(is_first_B, [*range(1, state_BH.ndim)])
        return step(jnp.where(is_first_BH, 0.0, state_BH), *inputs_BH)

    over_time = (jnp.moveaxis(x, 1, 0) for x in (_starts(document_BT, T), *inputs_BTH))
    return jnp.moveaxis(jax.lax.scan(turn, start_BH, tuple(over_time))[1], 0, 1)


def _starts(document_BT: Array | None, T: int) -> Array:
    """Return [B or 1, T]: whether a document starts at a token."""
    if document_BT is None:
        return jnp.zeros((1, T), bool)
    before_BT = jnp.pad(document_BT[:, :-1], ((0, 0), (1, 0)))
    return document_BT != before_BT
