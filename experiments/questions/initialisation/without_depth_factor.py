"""Output projections start without the factor of depth: W ~ N(0, 1 / inputs)."""

from harness.extend import Draw, register_initialisation


@register_initialisation("without_depth_factor")
def without_depth_factor(path, spec, context, options):
    return Draw("normal", 1 / spec.fan_in**0.5) if spec.depth else spec.draw
