"""Orthogonal weights: rows or columns, the shorter ones, are orthogonal and of equal length."""

from dataclasses import replace

from harness.extend import register_initialisation


@register_initialisation("orthogonal")
def orthogonal(path, spec, context, options):
    if not spec.is_weight or not spec.is_matrix or "vocabulary" in spec.axes:
        return spec.draw
    return replace(spec.draw, distribution="orthogonal")
