"""Programs without a gradient: held-out loss per domain, at equal token counts, and samples of images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from harness.data import HeldOut
from harness.models import Model
from harness.models.families.abilities import DrawsImages
from harness.parallel.processes.agreement import put_sharded
from harness.training.metrics.metric_registry import ConfiguredMetric
from harness.training.metrics.metric_values import row_values
from harness.training.programs.compile_cache import Program, bounded_results
from harness.training.trainable.trainable_model import Params, TrainableModel

EULER_STEPS = 16
"""Number of Euler steps from noise to image for the samples at the end of a run."""


class DomainResult(NamedTuple):
    """Result of an evaluation on one held-out domain."""

    loss: float
    """Mean loss per token."""
    bits_per_byte: float | None
    """None if the tokens are not text."""
    metrics: dict[str, float]
    """Mean over the rows of each metric of the run's own, by column."""


def make_evaluate(model: Model | TrainableModel, metrics: Sequence[ConfiguredMetric] = ()):
    """Build (params, rows [B, T+1]) -> loss of each row, summed over its tokens, float32 [B]; with metrics of
    the run's own, [B, 1 + columns]."""

    def evaluate(params: Params, tokens_BT1: Int[Array, "B T1"]) -> Float[Array, "B ..."]:
        loss_B = jnp.sum(model.token_losses(params, tokens_BT1), axis=1)
        if not metrics:
            return loss_B
        values = row_values(metrics, model, params, tokens_BT1).values()
        if not jax.sharding.get_abstract_mesh().empty:
            values = [jax.reshard(value_B, jax.typeof(loss_B).sharding.spec) for value_B in values]
        return jnp.stack([loss_B, *values], axis=1)

    return evaluate


def evaluate_domains(
    program: Program,
    params: Params,
    heldout: Mapping[str, HeldOut],
    batch: int,
    length: int,
    sharding: jax.sharding.Sharding,
    columns: Sequence[str] = (),
) -> dict[str, DomainResult]:
    """Return the result of each domain. Rows have `length` predicted tokens. The last batch of a domain is
    padded with repeated rows, which do not enter the mean. `columns`: those of the run's own metrics."""
    batches = {domain: padded_batches(examples.tokens_NT, batch) for domain, examples in heldout.items()}
    all_batches = itertools.chain.from_iterable(batches.values())
    sums = bounded_results(program(params, put_sharded(rows, sharding)) for rows in all_batches)
    results = {}
    for domain, examples in heldout.items():
        count, size = len(examples.tokens_NT), examples.bytes
        values = np.concatenate([next(sums) for _ in batches[domain]])[:count]
        loss_N, *metrics = values.reshape(count, -1).T
        total = float(loss_N.sum(dtype=np.float64))
        means = {name: float(v_N.mean(dtype=np.float64)) for name, v_N in zip(columns, metrics, strict=True)}
        bits = total / (math.log(2) * size) if size else None
        results[domain] = DomainResult(total / (count * length), bits, means)
    return results


def padded_batches(tokens_NT: np.ndarray, batch: int) -> list[np.ndarray]:
    """Split rows into batches, repeating the first rows to fill the last batch."""
    indices = np.resize(np.arange(len(tokens_NT)), math.ceil(len(tokens_NT) / batch) * batch)
    return [tokens_NT[rows] for rows in indices.reshape(-1, batch)]


def make_sample(model: DrawsImages, steps: int = EULER_STEPS):
    """Build (params, rows [B, R], guidance) -> images, uint8 [B, H, W, C]."""

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
