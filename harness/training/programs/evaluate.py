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
from harness.parallel.processes.agreement import placed
from harness.training.programs.compile_cache import Program, in_turn
from harness.training.trainable.trainable_model import Params

if TYPE_CHECKING:
    from harness.training.trainable.trainable_model import Learner


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

    The last batch of a domain is filled up with repeats, which are left out of the mean.
    """
    batches = {domain: _batches(held.tokens_NT, batch) for domain, held in heldout.items()}
    sums = in_turn(program(params, placed(rows, sharding)) for each in batches.values() for rows in each)
    results = {}
    for domain, held in heldout.items():
        count, size = len(held.tokens_NT), held.bytes
        all_N = np.concatenate([next(sums) for _ in batches[domain]])
        total = float(all_N[:count].sum(dtype=np.float64))
        results[domain] = (total / (count * length), total / (math.log(2) * size) if size else None)
    return results


def _batches(tokens_NT: np.ndarray, batch: int) -> list[np.ndarray]:
    filled = np.resize(np.arange(len(tokens_NT)), math.ceil(len(tokens_NT) / batch) * batch)
    return [tokens_NT[rows] for rows in filled.reshape(-1, batch)]
