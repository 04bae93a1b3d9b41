"""Uniform weights with deviation 0.5 / sqrt(inputs)."""

from harness.extend import Draw, register_initialisation


@register_initialisation("half_uniform")
def half_uniform(path, spec, context, options):
    if not spec.is_weight or "vocabulary" in spec.axes:
        return spec.draw
    return Draw("uniform", 0.5 / spec.fan_in**0.5)
