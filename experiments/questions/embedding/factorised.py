"""Factorised embedding: rows of r values, mapped to the model's width, x0 = row(t) W (arXiv:1909.11942)."""

from dataclasses import dataclass

from flax import nnx

from harness.extend import project, register_embedding, weight


@dataclass(frozen=True)
class Options:
    rank: int = 128
    """Width of the rows of the table."""


@register_embedding("factorised", Options, table_width=lambda context, options: options.rank)
class Factorised(nnx.Module):
    def __init__(self, context, options):
        self.up = weight((options.rank, context.shape.width), (None, "width"), fan_in=options.rank)

    def __call__(self, x_BTR):
        return project(x_BTR, self.up)
