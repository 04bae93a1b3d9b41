"""Matrices into the feed-forward layer start times 1 - 0.3 l / (L - 1)."""

from dataclasses import dataclass

from harness.extend import register_initialisation


@dataclass(frozen=True)
class Options:
    fall: float = 0.3


@register_initialisation("falling_inputs", Options)
def falling_inputs(path, spec, context, options):
    is_input = ".feedforward." in path and spec.is_weight and not spec.depth
    last = max(1, context.shape.layers - 1)
    return spec.draw.scaled(1 - options.fall * context.layer / last) if is_input else spec.draw
