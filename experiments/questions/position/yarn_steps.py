"""YaRN when a window changes: f *= s + clip((old f / 2 pi - 1) / 31, 0, 1) (1 - s), s = old / new window, and
scores *= 1 + .2 ln(1 / s), at each widening by thirds of the run."""

import itertools
import math
from dataclasses import dataclass

import jax.numpy as jnp

from harness.extend import register_position


@dataclass(frozen=True)
class Options:
    windows: tuple[int, ...] = (384, 896, 1408, 2560)
    """Windows of equal parts of the run, and at last the one of evaluation."""
    base: float = 10_000.0


@register_position("yarn_steps", Options)
def yarn_steps(context, options, progress):
    pairs, windows = context.shape.head_width // 2, options.windows
    frequency_J, scale = options.base ** (-jnp.arange(pairs) / pairs), jnp.float32(1)
    stage = jnp.floor(progress * (len(windows) - 1))
    for index, (old, new) in enumerate(itertools.pairwise(windows)):
        share = old / new
        turns_J = jnp.clip((old * frequency_J / (2 * math.pi) - 1) / 31, 0, 1)
        widened_J = frequency_J * (share + turns_J * (1 - share))
        frequency_J = jnp.where(stage > index, widened_J, frequency_J)
        scale = jnp.where(stage > index, scale * (1 + 0.2 * math.log(1 / share)), scale)
    return frequency_J, scale
