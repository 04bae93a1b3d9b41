"""Sampling of images: the compiled program, and calls of it in batches."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from harness.models import ImageModel, Model
from harness.training.programs.compile_cache import bounded_results
from harness.training.programs.evaluate import padded_batches
from harness.training.trainable.trainable_model import Params

EULER_STEPS = 16
"""Number of Euler steps from noise to image for the samples at the end of a run."""


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
