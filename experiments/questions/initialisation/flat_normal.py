"""One spread for all weights: W ~ N(0, 0.02), cut at three deviations."""

from dataclasses import dataclass

from harness.extend import Draw, register_initialisation


@dataclass(frozen=True)
class Options:
    deviation: float = 0.02


@register_initialisation("flat_normal", Options)
def flat_normal(path, spec, context, options):
    return Draw("truncated", options.deviation, cut=3.0) if spec.is_weight else spec.draw
