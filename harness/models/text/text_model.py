"""The decoder as pure functions over a dict of parameters, and the construction of a run's model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from harness.config.schema.run import LOSS_PIECE_VALUES, Config
from harness.models import diffusion, flops, sizing
from harness.models.execution.layer_stack import decide_scan
from harness.models.execution.pipeline import pipeline_schedule
from harness.models.kernels import KernelTarget
from harness.models.mechanism import RouterStats
from harness.models.model_api import Model, Params
from harness.models.model_spec import ModelSpec
from harness.models.step_clock import StepClock
from harness.models.text.cross_entropy import (
    LossTerms,
    MeanLoss,
    loss_in_pieces,
    loss_of_logits,
    needs_pieces,
)
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
        logits_BTV = self._decode(params, tokens_BT)[0]
        if not self._has_padding:
            return logits_BTV
        if not jax.sharding.get_abstract_mesh().empty:  # a vocabulary need not divide over the devices
            *batch_and_time, _ = jax.typeof(logits_BTV).sharding.spec
            logits_BTV = jax.reshard(logits_BTV, jax.P(*batch_and_time, None))
        return logits_BTV[..., : self.shape.vocabulary]

    def _decode(self, params: Params, tokens_BT: Array) -> tuple[Array, dict[str, RouterStats]]:
        return shard_sequence(lambda params, tokens_BT: self.module(params)(tokens_BT), params, tokens_BT)

    def token_losses(self, params: Params, tokens_BT1: Int[Array, "B T+1"]) -> Float[Array, "B T"]:
        """Return the cross-entropy of each token after the first, in float32 nats. It has a gradient only
        where the head is too small for pieces (`cross_entropy.needs_pieces`)."""
        return self._losses(params, tokens_BT1, 0.0)[0].loss_BT

    def loss(
        self, params: Params, tokens_BT1: Int[Array, "B T+1"], z_loss: float, clock: StepClock | None = None
    ) -> tuple[Float[Array, ""], dict[str, Any]]:
        """Return the loss that is minimised, and a dict of its parts. `loss` is the mean cross-entropy per
        token in float32 nats; `z` is the mean squared log-partition (arXiv:2204.02311, section 5), weighted
        by `z_loss`; `signals` holds the RouterStats of layers with experts by stored path, whose auxiliary
        losses are added."""
        losses, signals = self._losses(params, tokens_BT1, z_loss)
        metrics = {
            "loss": jnp.mean(losses.loss_BT),
            "z": jnp.mean(jnp.square(losses.partition_BT)),
            "signals": signals,
        }
        auxiliary = [stats.auxiliary for stats in signals.values() if stats.auxiliary is not None]
        return sum(map(jnp.sum, auxiliary), losses.mean), metrics

    def _losses(
        self, params: Params, tokens_BT1: Array, z_loss: float
    ) -> tuple[MeanLoss, dict[str, RouterStats]]:
        """Return the loss of each token and their mean, and the layers' statistics."""
        inputs_BT, target_BT = tokens_BT1[:, :-1], tokens_BT1[:, 1:]
        if not needs_pieces(target_BT.size, self.spec.table_rows):
            logits_BTV, signals = self._decode(params, inputs_BT)
            return loss_of_logits(logits_BTV, target_BT, z_loss), signals
        x_BTD, signals = shard_sequence(
            lambda params, tokens_BT: self._decoder(params).head_inputs(tokens_BT), params, inputs_BT
        )
        table_VD = self._decoder(params).head_table[...].astype(jnp.float32)
        vocabulary = self.shape.vocabulary if self._has_padding else None
        terms = LossTerms(z_loss, self.spec.config.logit_softcap, vocabulary)
        return loss_in_pieces(x_BTD, table_VD, target_BT, terms), signals

    @property
    def _has_padding(self) -> bool:
        return self.spec.table_rows > self.shape.vocabulary

    def _decoder(self, params: Params) -> Decoder:
        return cast(Decoder, self.module(params))

    def _saved_values(self) -> tuple[float, float, float]:
        shape, contexts = self.shape, self.spec.contexts
        attention = [self.spec.attention.executed_flops(context) for context in contexts]
        feedforward = [self.spec.feedforward.executed_flops(context) for context in contexts]
        scores = sum(m.activations / (4 * shape.head_width) for m in attention if not m.rescored)
        hidden = sum(matmuls.total / (2 * shape.width) for matmuls in feedforward)
        products = shape.layers * (6 * shape.width + 4 * shape.heads * shape.head_width) + hidden
        tokens = self.spec.per_device_batch * self.spec.sequence_length / self.spec.sequence_shards
        return products, scores, 8 * min(self.spec.table_rows, LOSS_PIECE_VALUES / tokens)


def build(
    config: Config, vocabulary: int, end_token: int | None = None, image: tuple[int, int, int] | None = None
) -> Model:
    """Build the model of a run. Raises UserError for a config that has no model.

    `end_token` ends a document, for a config that masks documents. `image` is the height, width and channels
    of image data; None for text.
    """
    if config.model.kind == "dit" or image is not None:
        return diffusion.build(config, vocabulary, image)
    length = config.data.sequence_length
    check_divides({"context": config.mesh.context}, "time", length)
    shape = sizing.choose_dims(config.model, config.scale.parameters, vocabulary, length)
    mesh, batch = config.mesh, config.scale.batch // config.compute.microbatches
    per_device_batch = max(1, batch // (mesh.data * mesh.fsdp * mesh.expert))
    separator = end_token if config.data.mask_documents else None
    target = KernelTarget.of(config)
    spec = ModelSpec(config.model, shape, length, per_device_batch, separator, mesh.context, target)
    compute = decide_scan(config, spec)
    pipeline = pipeline_schedule(config, bool(compute.scan_layers), shape.layers, spec.period)
    spec = replace(spec, pipeline=pipeline, products=config.compute.products)
    return TextModel.assemble(spec, compute)
