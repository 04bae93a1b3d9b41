"""Embedding times sqrt(D): a table that starts and learns sqrt(D) times as fast."""

from harness.extend import Scale, mup, register_scaling


@register_scaling("root_width_embedding")
def root_width_embedding(path, spec, growth, options):
    scale = mup(path, spec, growth, options)
    factor = spec.shape[1] ** 0.5 if path == "embedding" else 1.0
    return Scale(rate=factor * scale.rate, deviation=factor, epsilon=1 / factor)
