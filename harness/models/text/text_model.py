"""The decoder as plain functions over a flat dict of parameters, and how a config becomes a model."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from harness.config.schema.run import ComputeConfig, Config, Kind, Precision, Remat
from harness.models import diffusion, flops, sizing
from harness.models.mechanism import Signals
from harness.models.model_api import Model, Params, parts_of
from harness.models.model_spec import Blueprint
from harness.models.text.decoder import Decoder
from harness.parallel.sharding.axis_rules import check_sequence
from harness.parallel.sharding.sequence_parallel import in_parts


class TextModel(Model):
    """One decoder."""

    @property
    def row_length(self) -> int:
        return self.blueprint.sequence_length + 1

    @property
    def loss_unit(self) -> str:
        return "nats a token"

    @property
    def non_embedding(self) -> int:
        return sizing.non_embedding(self.blueprint)

    @property
    def embedding(self) -> int:
        """Parameters of the embedding and of an untied head."""
        return sizing.embedding(self.blueprint.config, self.shape)

    @property
    def flops_per_token(self) -> float:
        """Model FLOPs of one trained token."""
        return flops.model_flops(self.blueprint)

    @property
    def executed_flops_per_token(self) -> float:
        """FLOPs of one trained token as the code multiplies them."""
        return flops.executed_flops(self.blueprint, self.compute.remat)

    @property
    def cache_bytes(self) -> float:
        """What decoding keeps of one sequence of the config's length, all layers, in compute precision."""
        each = 2 if self.compute.precision is Precision.bfloat16 else 4
        return sum(self.blueprint.attention.cache_bytes(site, each) for site in self.blueprint.sites)

    def logits(self, params: Params, tokens_BT: Int[Array, "B T"]) -> Float[Array, "B T V"]:
        """Float32 logits of each next token."""
        return self._decoded(params, tokens_BT)[0]

    def _decoded(self, params: Params, tokens_BT: Array) -> tuple[Array, dict[str, Signals]]:
        return in_parts(lambda params, tokens_BT: self.module(params)(tokens_BT), params, tokens_BT)

    def token_losses(self, params: Params, tokens_BT1: Int[Array, "B T+1"]) -> Float[Array, "B T"]:
        """Cross-entropy of each token after the first, float32 nats."""
        return self._losses(params, tokens_BT1)[0]

    def loss(
        self, params: Params, tokens_BT1: Int[Array, "B T+1"], z_loss: float
    ) -> tuple[Float[Array, ""], dict[str, Any]]:
        """What is minimised, and its parts: `loss`, the mean cross-entropy a token in float32 nats;
        `z`, the mean squared log-partition (arXiv:2204.02311, section 5), which counts `z_loss` times;
        `signals` of layers with experts by stored path, whose auxiliary losses are added."""
        losses_BT, partition_BT, signals = self._losses(params, tokens_BT1)
        parts = {"loss": jnp.mean(losses_BT), "z": jnp.mean(jnp.square(partition_BT)), "signals": signals}
        total = parts["loss"] + z_loss * parts["z"]
        auxiliary = [each.auxiliary for each in signals.values() if each.auxiliary is not None]
        return sum(map(jnp.sum, auxiliary), total), parts

    def _losses(self, params: Params, tokens_BT1: Array) -> tuple[Array, Array, dict[str, Signals]]:
        """Cross-entropy and log-partition, [B, T] each, and the signals of the layers."""
        logits_BTV, signals = self._decoded(params, tokens_BT1[:, :-1])
        # Picked by comparison, not by index: no gather over a vocabulary that is split over devices.
        is_target_BTV = tokens_BT1[:, 1:, None] == jnp.arange(logits_BTV.shape[-1])
        target_BT = jnp.sum(jnp.where(is_target_BTV, logits_BTV, 0.0), axis=-1)
        partition_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
        return partition_BT - target_BT, partition_BT, signals

    def activation_bytes(self, tokens: int) -> int:
        """A guess of what the backward pass keeps for so many tokens: products, norms, scores, logits."""
        shape, width = self.shape, 2 if self.compute.precision is Precision.bfloat16 else 4
        attended = [self.blueprint.attention.executed_flops(site) for site in self.blueprint.sites]
        scores = sum(each.activations / (4 * shape.head_width) for each in attended if not each.rescored)
        hidden = sum(
            self.blueprint.feedforward.executed_flops(site).total / (2 * shape.width)
            for site in self.blueprint.sites
        )
        products = shape.layers * (6 * shape.width + 4 * shape.heads * shape.head_width) + hidden
        kept = {Remat.none: products * width + scores * 8, Remat.dots: products * width, Remat.full: 0.0}
        inputs = shape.layers * shape.width * width
        return int(tokens * (kept[self.compute.remat] + inputs + 8 * shape.vocabulary))


def build(
    config: Config,
    vocabulary: int,
    end: int | None = None,
    image: tuple[int, int, int] | None = None,
) -> Model:
    """The model of a run: sized and declared. Raises UserError for a config that has no model.

    `end`: the token that ends a document, for a config that masks them. `image`: height, width and channels
    of what is no text.
    """
    if config.model.kind is Kind.dit or image is not None:
        return diffusion.build(config, vocabulary, image)
    length = config.data.sequence_length
    check_sequence(length, config.mesh.context)
    shape = sizing.size(config.model, config.scale.parameters, vocabulary, length)
    mesh, sequences = config.mesh, config.scale.batch // config.compute.microbatches
    at_once = max(1, sequences // (mesh.data * mesh.fsdp * mesh.expert))
    separator = end if config.data.mask_documents else None
    blueprint = Blueprint(config.model, shape, length, at_once, separator, mesh.context)
    return assemble(blueprint, config.compute)


def assemble(blueprint: Blueprint, compute: ComputeConfig) -> TextModel:
    """The model of a blueprint: the module is built and split once, here."""
    decoder = Decoder(blueprint, compute)
    return TextModel(blueprint, compute, decoder.stacking, *parts_of(decoder, decoder.stacking))
