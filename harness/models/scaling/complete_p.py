"""CompleteP (arXiv:2505.01618): learning rates carry across depth as well as across width.

A model is w times as wide and d times as deep as its base. The paper chooses alpha = 1; 1/2 is depth-muP:

                      multiplier   learning rate     share of decay    epsilon
    embedding, head   as muP       as muP            1                 1 / w
    hidden matrices   1            d^(alpha-1) / w   d^(alpha-1)       d^-alpha / w
    branch outputs    d^-alpha     as hidden         as hidden         as hidden
    gains, biases     1            d^(alpha-1)       none              d^-alpha / w

The multiplier of a branch is part of its last weight, which declares that it writes to the residual stream:
a weight that is multiplied by c is the same as one that starts c times as large and learns c times as fast,
with Adam's epsilon 1 / c times as large. Of muP's multipliers the tables keep half, as `models.mup` says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.core.errors import UserError
from harness.models.mup import learning_rate_scale
from harness.models.parameters import ParamSpec
from harness.models.scaling.scaling_registry import Growth, Scale, register_scaling


@dataclass(frozen=True)
class CompletePOptions:
    """Options of `complete_p`."""

    base_layers: int
    """Number of layers that the learning rate was tuned at."""
    alpha: float = 1.0
    """Exponent of the depth in the multiplier of a branch."""

    def __post_init__(self):
        if self.base_layers < 1:
            raise UserError(
                f"model.scaling.options.base_layers={self.base_layers} must be at least 1. Give the number of"
                " layers that the learning rate was tuned at."
            )
        if not 0.5 <= self.alpha <= 1:
            raise UserError(
                f"model.scaling.options.alpha={self.alpha} must be between 0.5 (depth-muP) and 1 (CompleteP):"
                " outside of them the sum of the layers explodes or they stop learning."
            )


@register_scaling("complete_p", CompletePOptions)
def complete_p(path: str, spec: ParamSpec, growth: Growth, options: CompletePOptions) -> Scale:
    """Return the factors of a parameter."""
    rate, epsilon = learning_rate_scale(spec, growth.width), 1 / growth.width
    if "layers." not in path:
        return Scale(rate, epsilon=epsilon * (math.sqrt(growth.width) if "vocabulary" in spec.axes else 1))
    depth = growth.layers / options.base_layers
    share, branch = depth ** (options.alpha - 1), depth**-options.alpha
    if not spec.depth:
        return Scale(rate * share, share, epsilon=epsilon * branch)
    # The declared deviation has 1 / sqrt(2 depth) in it already.
    return Scale(rate * share * branch, share, branch * math.sqrt(depth), epsilon)
