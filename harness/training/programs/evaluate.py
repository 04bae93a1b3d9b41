"""Programs without a gradient: held-out loss per domain, at equal token counts, and samples of images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from harness.data import HeldOut
from harness.models import ImageModel, Model
from harness.parallel.processes.agreement import put_sharded
from harness.training.programs.compile_cache import Program, bounded_results
from harness.training.trainable.trainable_model import Params, TrainableModel

EULER_STEPS = 16
"""Number of Euler steps from noise to image for the samples at the end of a run."""


def make_evaluate(model: Model | TrainableModel):
    """Build (params, rows [B, T+1]) -> loss of each row, summed over its tokens, float32 [B]."""

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
    """Return the mean loss per token and the bits per byte of each domain. Rows have `length` predicted
    tokens. The last batch of a domain is padded with repeated rows, which do not enter the mean. Bits per
    byte is None if the tokens are not text."""
    batches = {domain: padded_batches(examples.tokens_NT, batch) for domain, examples in heldout.items()}
    all_batches = itertools.chain.from_iterable(batches.values())
    sums = bounded_results(program(params, put_sharded(rows, sharding)) for rows in all_batches)
    results = {}
    for domain, examples in heldout.items():
        count, size = len(examples.tokens_NT), examples.bytes
        all_N = np.concatenate([next(sums) for _ in batches[domain]])
        total = float(all_N[:count].sum(dtype=np.float64))
        results[domain] = (total / (count * length), total / (math.log(2) * size) if size else None)
    return results


def padded_batches(tokens_NT: np.ndarray, batch: int) -> list[np.ndarray]:
    """Split rows into batches, repeating the first rows to fill the last batch."""
    indices = np.resize(np.arange(len(tokens_NT)), math.ceil(len(tokens_NT) / batch) * batch)
    return [tokens_NT[rows] for rows in indices.reshape(-1, batch)]


def make_sample(model: Model, steps: int = EULER_STEPS):
    """Build (params, rows [B, R], guidance) -> images, uint8 [B, H, W, C]."""
    assert isinstance(model, ImageModel)

    def sample(
        params: Params, rows_BR: Int[Array, "B R"], guidance: Float[Array, ""]
    ) -> UInt8[Array, "B H W C"]:
        images_BHWC = model.sample(params, rows_BR, guidance, steps)
        return jnp.clip(jnp.round((images_BHWC + 1) * 127.5), 0, 255).astype(jnp.uint8)

    return sample


def map_batches(program: Callable[[np.ndarray], Array], rows_NR: np.ndarray, batch: int) -> np.ndarray:
    """Apply a program of `batch` rows to any number of rows; the padding of the last batch is dropped."""
    results = bounded_results(program(rows_BR) for rows_BR in padded_batches(rows_NR, batch))
    return np.concatenate(list(results))[: len(rows_NR)]
