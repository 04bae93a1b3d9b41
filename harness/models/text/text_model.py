"""The decoder as pure functions over a dict of parameters, and the construction of a run's model."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from harness.config.schema.run import Config, ModelFamily
from harness.models import diffusion, flops, sizing
from harness.models.mechanism import RouterStats
from harness.models.model_api import Model, Params
from harness.models.model_spec import ModelSpec
from harness.models.text.decoder import Decoder
from harness.parallel.sharding.axis_rules import check_divides
from harness.parallel.sharding.sequence_parallel import shard_sequence


class TextModel(Model):
    """A decoder of text."""

    loss_unit = "nats a token"
    _module, _flops, _sizing = Decoder, flops, sizing

    @property
    def row_length(self) -> int:
        """Number of tokens in one example: the sequence length, plus one for the last target."""
        return self.spec.sequence_length + 1

    @property
    def cache_bytes(self) -> float:
        """Bytes that decoding caches in all layers for one sequence of the config's length."""
        attention, size = self.spec.attention, self.bytes_per_value
        return sum(attention.cache_bytes(context, size) for context in self.spec.contexts)

    def logits(self, params: Params, tokens_BT: Int[Array, "B T"]) -> Float[Array, "B T V"]:
        """Return the float32 logits of each next token."""
        return self._decode(params, tokens_BT)[0]

    def _decode(self, params: Params, tokens_BT: Array) -> tuple[Array, dict[str, RouterStats]]:
        return shard_sequence(lambda params, tokens_BT: self.module(params)(tokens_BT), params, tokens_BT)

    def token_losses(self, params: Params, tokens_BT1: Int[Array, "B T+1"]) -> Float[Array, "B T"]:
        """Return the cross-entropy of each token after the first, in float32 nats."""
        return self._losses(params, tokens_BT1)[0]

    def loss(
        self, params: Params, tokens_BT1: Int[Array, "B T+1"], z_loss: float
    ) -> tuple[Float[Array, ""], dict[str, Any]]:
        """Return the loss that is minimised, and a dict of its parts. `loss` is the mean cross-entropy per
        token in float32 nats; `z` is the mean squared log-partition (arXiv:2204.02311, section 5), weighted
        by `z_loss`; `signals` holds the RouterStats of layers with experts by stored path, whose auxiliary
        losses are added."""
        losses_BT, partition_BT, signals = self._losses(params, tokens_BT1)
        metrics = {"loss": jnp.mean(losses_BT), "z": jnp.mean(jnp.square(partition_BT)), "signals": signals}
        total = metrics["loss"] + z_loss * metrics["z"]
        auxiliary = [stats.auxiliary for stats in signals.values() if stats.auxiliary is not None]
        return sum(map(jnp.sum, auxiliary), total), metrics

    def _losses(self, params: Params, tokens_BT1: Array) -> tuple[Array, Array, dict[str, RouterStats]]:
        """Return cross-entropy and log-partition, each [B, T], and the layers' statistics."""
        logits_BTV, signals = self._decode(params, tokens_BT1[:, :-1])
        # Selected by comparison: an index would gather over a vocabulary that is sharded.
        is_target_BTV = tokens_BT1[:, 1:, None] == jnp.arange(logits_BTV.shape[-1])
        target_BT = jnp.sum(jnp.where(is_target_BTV, logits_BTV, 0.0), axis=-1)
        partition_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
        return partition_BT - target_BT, partition_BT, signals

    def _saved_values(self) -> tuple[float, float, int]:
        shape, contexts = self.shape, self.spec.contexts
        attention = [self.spec.attention.executed_flops(context) for context in contexts]
        feedforward = [self.spec.feedforward.executed_flops(context) for context in contexts]
        scores = sum(m.activations / (4 * shape.head_width) for m in attention if not m.rescored)
        hidden = sum(matmuls.total / (2 * shape.width) for matmuls in feedforward)
        products = shape.layers * (6 * shape.width + 4 * shape.heads * shape.head_width) + hidden
        return products, scores, 8 * shape.vocabulary


def build(
    config: Config, vocabulary: int, end_token: int | None = None, image: tuple[int, int, int] | None = None
) -> Model:
    """Build the model of a run. Raises UserError for a config that has no model.

    `end_token` ends a document, for a config that masks documents. `image` is the height, width and channels
    of image data; None for text.
    """
    if config.model.kind is ModelFamily.dit or image is not None:
        return diffusion.build(config, vocabulary, image)
    length = config.data.sequence_length
    check_divides({"context": config.mesh.context}, "time", length)
    shape = sizing.choose_dims(config.model, config.scale.parameters, vocabulary, length)
    mesh, batch = config.mesh, config.scale.batch // config.compute.microbatches
    per_device_batch = max(1, batch // (mesh.data * mesh.fsdp * mesh.expert))
    separator = end_token if config.data.mask_documents else None
    spec = ModelSpec(config.model, shape, length, per_device_batch, separator, mesh.context)
    return TextModel.assemble(spec, config.compute)
