"""What a mechanism of conditioning is: it stands in every layer and once more ahead of the head.

    @conditioning("mine", Options, model_flops=..., executed_flops=...)
    class Mine(Conditioning):
        def __init__(self, context: Site, options: Options): ...
        def __call__(self, condition_B1D): ...

In a layer it makes two ways, one for attention and one for the feed-forward layer; at the context after the
last layer it makes one, into the head, which has no leave. Its FLOPs are those of its own products alone.
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
    """Around one branch of the residual stream: x + leave(branch(enter(x)))."""

    pre: Callable[[Array], Array]
    post: Callable[[Array], Array]


class Conditioning(nnx.Module):
    extra: ClassVar[int] = 0
    """Tokens that stand before the patches: 0, or 2 (time, label)."""
    gated: ClassVar[bool] = False
    """Whether `leave` multiplies, so that rematerialisation computes a branch's last product again."""

    def __call__(self, condition_B1D: Array) -> list[BranchModulation]:
        """The ways of this context; the condition is the sum of the embeddings of time and label."""
        raise NotImplementedError


def num_branches(context: LayerContext) -> int:
    """Two in a layer, one ahead of the head."""
    return 2 if context.layer < context.shape.layers else 1
