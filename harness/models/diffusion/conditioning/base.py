"""The interface of a conditioning mechanism, built for every layer and once more before the head.

    @register_conditioning("mine", Options, model_flops=..., executed_flops=...)
    class Mine(Conditioning):
        def __init__(self, context: LayerContext, options: Options): ...
        def __call__(self, condition_B1D): ...

In a layer it returns two modulations, for attention and feed-forward; after the last layer one, for the head,
whose `post` is not called. Its FLOPs are only those of its own products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from flax import nnx
from jax import Array

from harness.models.mechanism import LayerContext


@dataclass(frozen=True)
class BranchModulation:
    """Modulation of one branch of the residual stream: x + post(branch(pre(x)))."""

    pre: Callable[[Array], Array]
    post: Callable[[Array], Array]


class Conditioning(nnx.Module):
    """Base of conditioning modules."""

    extra: ClassVar[int] = 0
    """Number of tokens inserted before the patches: 0, or 2 (time, label)."""
    gated: ClassVar[bool] = False
    """True if `post` multiplies, so that rematerialisation recomputes a branch's last product."""

    def __call__(self, condition_B1D: Array) -> list[BranchModulation]:
        """Return the modulations of this layer. The condition is time embedding plus label embedding."""
        raise NotImplementedError


def num_branches(context: LayerContext) -> int:
    """Return the number of modulations: two in a layer, one before the head."""
    return 2 if context.layer < context.shape.layers else 1
