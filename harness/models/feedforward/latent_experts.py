"""Experts on a latent (arXiv:2601.18089): tokens are projected to a narrower latent before the experts and
back after their sum, so that what travels between devices is narrower. The router and the shared experts read
the tokens themselves."""

from __future__ import annotations

from dataclasses import dataclass

from jax import Array

from harness.models.feedforward.moe import MoE, MoEOptions, register_experts
from harness.models.feedforward.routing import Routing
from harness.models.layers import project
from harness.models.mechanism import LayerContext
from harness.models.parameters import weight


@dataclass(frozen=True)
class LatentOptions(MoEOptions):
    """Options of `latent_experts`."""

    latent_share: float = 0.5
    """Width of the latent, relative to the model's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.latent_share <= 1:
            self._refuse("latent_share", "must be above 0 and at most 1, for example 0.5.")

    def expert_width(self, width: int) -> int:
        """Return the width of the latent in a model of this width."""
        return max(1, round(self.latent_share * width))


def _projection_flops(context: LayerContext, options: LatentOptions) -> float:
    """Count the projections to the latent and back."""
    width = context.shape.width
    return 2.0 * 2 * width * options.expert_width(width)


@register_experts("latent_experts", LatentOptions, _projection_flops)
class LatentExperts(MoE):
    """Mixture of experts that read and write a latent."""

    def __init__(self, context: LayerContext, options: LatentOptions):
        super().__init__(context, options)
        D, I = context.shape.width, options.expert_width(context.shape.width)
        self.compress = weight((D, I), ("width", None), fan_in=D)
        self.expand = weight((I, D), (None, "width"), fan_in=I)

    def apply(self, x_BTD: Array, routing: Routing) -> tuple[Array, Array]:
        """Return the sum of the experts' outputs on the latent, and the dropped share of assignments."""
        y_BTI, dropped = super().apply(project(x_BTD, self.compress), routing)
        return project(y_BTI, self.expand), dropped
