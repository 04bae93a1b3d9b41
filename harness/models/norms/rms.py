"""The default norm: x / rms(x) * gain."""

from __future__ import annotations

from harness.config.socket_registry import NoOptions
from harness.models.layers import RMSNorm
from harness.models.mechanism import LayerContext
from harness.models.norms.norm_registry import register_norm


@register_norm("rms")
def rms(size: int, axis: str | None, context: LayerContext, options: NoOptions) -> RMSNorm:
    """Build an RMSNorm with the model's epsilon."""
    return RMSNorm(size, context.norm_epsilon, axis)
