"""Held-out loss per domain, at equal token counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from harness.data import HeldOut
from harness.models import Model
from harness.training.peers import fetched, placed
from harness.training.programs import Program
from harness.training.step import Params

if TYPE_CHECKING:
    from harness.training.learner import Learner


def make_evaluate(model: Model | Learner):
    """(params, rows [B, T+1]) -> losses summed over the tokens of each, float32 [B]."""

    def evaluate(params: Params, tokens_BT1: Int[Array, "B T1"]) -> Float[Array, " B"]:
        return jnp.sum(model.token_losses(params, tokens_BT1), axis=1)

    return evaluate


def evaluate_domains(
    program: Program,
    params: Params,
    heldout: Mapping[str, HeldOut],
    batch: int,
    length: int,
    sharding: jax.sharding.Sharding,
) -> dict[str, tuple[float, float | None]]:
    """By domain: mean loss a token of `length` in an example, and bits a byte of the predicted text.

    All batches are dispatched before the first result is fetched; the last one is filled up
    with repeats, which are left out of the mean.
    """
    pending = {
        domain: [program(params, placed(rows, sharding)) for rows in _batches(held.tokens_NT, batch)]
        for domain, held in heldout.items()
    }
    results = {}
    for domain, sums in pending.items():
        count, size = len(heldout[domain].tokens_NT), heldout[domain].bytes
        total = float(np.concatenate([fetched(each) for each in sums])[:count].sum(dtype=np.float64))
        results[domain] = (total / (count * length), total / (math.log(2) * size) if size else None)
    return results


def _batches(tokens_NT: np.ndarray, batch: int) -> list[np.ndarray]:
    filled = np.resize(np.arange(len(tokens_NT)), math.ceil(len(tokens_NT) / batch) * batch)
    return [tokens_NT[rows] for rows in filled.reshape(-1, batch)]
