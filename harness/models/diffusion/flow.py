"""Rectified flow (arXiv:2209.03003): a straight line from an image at time 0 to noise at time 1.

    x_t = (1 - t) image + t noise,    velocity = noise - image

The model learns the velocity at x_t. Following it from noise at time 1 back to time 0 generates an image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from harness.models.diffusion.model_spec import ImageModelDims
from harness.parallel.sharding.axis_rules import reshape_rows

TIME_UNIT = 65_536
"""Integer that stands for time 1 in a row (`data.images.image_corpus`)."""


@dataclass(frozen=True)
class FlowExamples:
    """Decoded rows [noise key (2 words), time, label, pixels...]."""

    image_BTI: Array
    """Patches, values between -1 and 1."""
    noise_BTI: Array
    time_B: Array
    label_B: Array

    @classmethod
    def from_rows(cls, rows_BR: Array, shape: ImageModelDims) -> FlowExamples:
        """Decode rows of int32 words [B, R]."""
        pixels_BP = rows_BR[:, 4:].astype(jnp.float32) / 127.5 - 1
        time_B = rows_BR[:, 2].astype(jnp.float32) / TIME_UNIT
        return cls(patchify(pixels_BP, shape), draw_noise(rows_BR[:, :2], shape), time_B, rows_BR[:, 3])

    @property
    def x_t_BTI(self) -> Array:
        """Noised patches at the rows' times."""
        t_B11 = self.time_B[:, None, None]
        return (1 - t_B11) * self.image_BTI + t_B11 * self.noise_BTI

    @property
    def velocity_BTI(self) -> Array:
        """Target velocity of the patches."""
        return self.noise_BTI - self.image_BTI


def draw_noise(words_B2: Array, shape: ImageModelDims) -> Array:
    """Return standard normals [B, T, I] that depend only on the keys, on any mesh (threefry)."""
    words = jax.lax.bitcast_convert_type(words_B2, jnp.uint32)
    keys_B = jax.random.wrap_key_data(words, impl="threefry2x32")
    return jax.vmap(lambda key: jax.random.normal(key, (shape.patches, shape.values)))(keys_B)


def patchify(pixels_BP: Array, shape: ImageModelDims) -> Array:
    """Cut images into patches [B, T, I], row by row; each patch is [patch, patch, channels] row by row."""
    (down, across), side = shape.grid, shape.patch
    split = (len(pixels_BP), down, side, across, side, shape.channels)
    x = reshape_rows(pixels_BP, split, *[None] * 5).swapaxes(2, 3)
    flat = (len(pixels_BP), shape.patches, shape.values)
    return reshape_rows(x, flat, None, None)


def unpatchify(patches_BTI: Array, shape: ImageModelDims) -> Array:
    """Join patches into images [B, H, W, C]; the inverse of `patchify`."""
    (down, across), side = shape.grid, shape.patch
    split = (len(patches_BTI), down, across, side, side, shape.channels)
    x = reshape_rows(patches_BTI, split, *[None] * 5).swapaxes(2, 3)
    shape_BHWC = (len(patches_BTI), shape.height, shape.breadth, shape.channels)
    return reshape_rows(x, shape_BHWC, None, None, None)


def integrate_euler(velocity: Callable[[Array, Array], Array], noise_BTI: Array, steps: int) -> Array:
    """Integrate from time 1 to 0 in equal steps of x - velocity(x, t) / steps; exact for straight paths."""

    def step(x_BTI: Array, time: Array) -> tuple[Array, None]:
        return x_BTI - velocity(x_BTI, time) / steps, None

    times_S = 1 - jnp.arange(steps) / steps
    return jax.lax.scan(step, noise_BTI, times_S)[0]
