"""Norm of the embedding: x0 = N(embedding)."""

from flax import nnx

from harness.extend import register_embedding


@register_embedding("embedding_norm")
class EmbeddingNorm(nnx.Module):
    """The rows of the table, normalised."""

    def __init__(self, context, options):
        self.norm = context.norm(context.shape.width)

    def __call__(self, x_BTD):
        return self.norm(x_BTD)
