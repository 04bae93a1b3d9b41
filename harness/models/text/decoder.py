"""The decoder: embedding, layers (unrolled or scanned), norm, head."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jax import Array

from harness.config.schema.run import ComputeConfig, Products
from harness.models.execution.layer_stack import LayerStack, apply_layers, build_layers
from harness.models.fp8 import use_fp8
from harness.models.layers import DTYPES, RMSNorm, Rotary, gather_rounded, matmul
from harness.models.mechanism import RouterStats
from harness.models.model_spec import ModelSpec
from harness.models.mup import relative_width
from harness.models.parameters import weight
from harness.models.text.embedding import lookup_rows
from harness.parallel.sharding.axis_rules import reshape_rows
from harness.parallel.sharding.sequence_parallel import (
    all_gather_sequence,
    local_shard,
    num_shards,
)


class DecoderLayer(nnx.Module):
    """Pre-norm residual layer: attention, then feed-forward."""

    def __init__(self, spec: ModelSpec, layer: int):
        context = spec.context(layer)
        self.attention_is_sharded = spec.attention.supports_sequence_parallel(context)
        self.feedforward_is_sharded = spec.feedforward.supports_sequence_parallel(context)
        self.attention_norm = RMSNorm(context.shape.width, context.norm_epsilon)
        self.attention = spec.attention.build(context)
        self.feedforward_norm = RMSNorm(context.shape.width, context.norm_epsilon)
        self.feedforward = spec.feedforward.build(context)
        for part in ("attention", "feedforward"):
            if getattr(spec.products, part) is Products.fp8:
                use_fp8(getattr(self, part), f"compute.products.{part}")

    def __call__(self, x_BTD: Array, rotary: Rotary) -> tuple[Array, RouterStats | None]:
        """Map [B, T, D] to [B, T, D] and the router's statistics, None without experts."""
        x_BTD = x_BTD + self._attend(self.attention_norm(x_BTD), rotary)
        y_BTD, signals = self._feed_forward(self.feedforward_norm(x_BTD))
        return x_BTD + y_BTD, signals

    def _attend(self, x_BTD: Array, rotary: Rotary) -> Array:
        """Apply attention to this device's shard of x. `rotary` covers the full sequence."""
        if self.attention_is_sharded:
            return self.attention(x_BTD, rotary.local_shard())
        return local_shard(self.attention(all_gather_sequence(x_BTD), rotary))

    def _feed_forward(self, x_BTD: Array) -> tuple[Array, RouterStats | None]:
        output = self.feedforward(x_BTD if self.feedforward_is_sharded else all_gather_sequence(x_BTD))
        y_BTD, signals = output if isinstance(output, tuple) else (output, None)
        return y_BTD if self.feedforward_is_sharded else local_shard(y_BTD), signals


def document_index(tokens_BT: Array, end: int) -> Array:
    """Return the index of each token's document, int32 [B, T]. The end token is its document's last."""
    ends_BT = (tokens_BT == end).astype(jnp.int32)
    return jnp.cumsum(ends_BT, axis=1) - ends_BT


class Decoder(nnx.Module):
    """Map tokens [B, T] to float32 logits [B, T, V] and RouterStats of layers with experts by stored path.

    V counts the rows of the table; those past the vocabulary are no token, and their logits are -inf.
    """

    def __init__(self, spec: ModelSpec, compute: ComputeConfig):
        config, shape = spec.config, spec.shape
        V, D = spec.table_rows, shape.width
        self.vocabulary = shape.vocabulary
        self.dtype, self.remat = DTYPES[compute.dtype], compute.remat
        self.head_width, self.rope_base = shape.head_width, config.rope_base
        self.end_token, self.microbatches = spec.end_token, spec.pipeline.microbatches
        self.relative_width, self.logit_softcap = relative_width(config, D), config.logit_softcap
        self.embedding = weight((V, D), ("vocabulary", "width"), fan_in=D)
        scan = compute.scan_layers is True
        self.stacking, self.repeats, self.layers = build_layers(DecoderLayer, spec, scan)
        self.norm = RMSNorm(D, config.norm_epsilon)
        self.head = None if config.tie_embeddings else weight((V, D), ("vocabulary", "width"), fan_in=D)

    def __call__(self, tokens_BT: Array) -> tuple[Array, dict[str, RouterStats]]:
        """Map token ids [B, T] to logits [B, T, V] and router statistics by stored path."""
        x_BTD, signals = self.head_inputs(tokens_BT)
        return self._logits(x_BTD), signals

    def head_inputs(self, tokens_BT: Array) -> tuple[Array, dict[str, RouterStats]]:
        """Map token ids [B, T] to what the head multiplies, [B, T, D], and router statistics."""
        documents_BT = None
        if self.end_token is not None:
            documents_BT = document_index(all_gather_sequence(tokens_BT), self.end_token)
        length = num_shards() * tokens_BT.shape[1]
        rotary = Rotary.table(length, self.head_width, self.rope_base)
        stack = LayerStack(self.repeats, self.layers, self.remat, self.microbatches)
        x_BTD = self._embed(tokens_BT)
        x_BTD, signals = apply_layers(stack, x_BTD, documents_BT, rotary.with_documents)
        return self._scale(self.norm(x_BTD), self.relative_width**-0.5), signals

    @property
    def head_table(self) -> nnx.Param:
        """Table [V, D] of the head."""
        return self.embedding if self.head is None else self.head

    def _embed(self, tokens_BT: Array) -> Array:
        x_BTD = lookup_rows(gather_rounded(self.embedding, self.dtype), tokens_BT, self.dtype)
        return self._scale(x_BTD, self.relative_width**0.5)

    def _logits(self, x_BTD: Array) -> Array:
        table_VD = gather_rounded(self.head_table, self.dtype)
        B, T, D = x_BTD.shape
        x_ND = reshape_rows(x_BTD, (B * T, D), None)
        logits_NV = matmul(x_ND, table_VD.T, (None, "vocabulary"), jnp.dtype(jnp.float32))
        if self.logit_softcap is not None:
            logits_NV = self.logit_softcap * jnp.tanh(logits_NV / self.logit_softcap)
        if self.vocabulary < len(table_VD):
            logits_NV = jnp.where(jnp.arange(len(table_VD)) < self.vocabulary, logits_NV, -jnp.inf)
        return reshape_rows(logits_NV, (B, T, -1), None, "vocabulary")

    def _scale(self, x_BTD: Array, factor: float) -> Array:
        """Multiply by a factor of `models.mup`. At the base width nothing is added to the program."""
        return x_BTD if self.relative_width == 1 else x_BTD * factor
