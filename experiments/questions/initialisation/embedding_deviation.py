"""Spread of the embedding: rows ~ N(0, deviation)."""

from dataclasses import dataclass

from harness.extend import Draw, register_initialisation


@dataclass(frozen=True)
class Options:
    deviation: float


@register_initialisation("embedding_deviation", Options)
def embedding_deviation(path, spec, context, options):
    return Draw("normal", options.deviation) if path == "embedding" else spec.draw
