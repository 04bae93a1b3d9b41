"""The decoder as pure functions over a dict of parameters, and the construction of a run's model."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from harness.config.schema.data import Packing
from harness.config.schema.run import LOSS_PIECE_VALUES, Config
from harness.core.errors import UserError
from harness.models import flops, sizing
from harness.models.execution.layer_stack import decide_scan
from harness.models.execution.pipeline import pipeline_schedule
from harness.models.families.abilities import PredictsTokens
from harness.models.kernels import KernelTarget
from harness.models.layers import DTYPES
from harness.models.mechanism import RouterStats
from harness.models.model_api import Model, Params
from harness.models.model_spec import ModelSpec
from harness.models.step_clock import StepClock
from harness.models.text import ends  # noqa: F401, which registers the defaults
from harness.models.text.cross_entropy import (
    LossTerms,
    MeanLoss,
    loss_in_pieces,
    loss_of_logits,
    mean_over_targets,
    needs_pieces,
)
from harness.models.text.decoder import Decoder
from harness.models.text.objective import Forward, run_objective
from harness.models.text.stream_check import check_stream
from harness.parallel.sharding.axis_rules import check_divides
from harness.parallel.sharding.sequence_parallel import shard_sequence

_Statistics = tuple[dict[str, RouterStats], Array | None]
"""Router statistics by stored path, and what mechanisms add to the loss."""


class TextModel(Model, PredictsTokens):
    """A decoder of text."""

    _module, _flops, _sizing = Decoder, flops, sizing

    @property
    def row_length(self) -> int:
        """Number of tokens in one example: the sequence length, plus one for the last target."""
        return self.spec.sequence_length + 1

    @property
    def table_rows(self) -> int:
        """Number of rows of embedding and head, with those that are no token."""
        return self.spec.table_rows

    @property
    def cache_bytes(self) -> float:
        """Bytes that decoding caches in all layers for one sequence of the config's length."""
        attention, size = self.spec.attention, self.bytes_per_value
        return sum(attention.cache_bytes(context, size) for context in self.spec.executed_contexts)

    def logits(self, params: Params, tokens_BT: Int[Array, "B T"]) -> Float[Array, "B T V"]:
        """Return the float32 logits of each next token."""
        logits_BTV = self._decode(params, tokens_BT)[0]
        if not self._has_padding:
            return logits_BTV
        if not jax.sharding.get_abstract_mesh().empty:  # a vocabulary need not divide over the devices
            *batch_and_time, _ = jax.typeof(logits_BTV).sharding.spec
            logits_BTV = jax.reshard(logits_BTV, jax.P(*batch_and_time, None))
        return logits_BTV[..., : self.shape.vocabulary]

    def _decode(
        self, params: Params, tokens_BT: Array, clock: StepClock | None = None
    ) -> tuple[Array, _Statistics]:
        """Return the logits and the statistics of the layers."""

        def decode(params: Params, tokens_BT: Array) -> tuple[Array, _Statistics]:
            decoder = self._decoder(params)
            output = decoder.run_layers(tokens_BT, clock)
            return decoder.logits(output.x_BTD), (output.signals, output.auxiliary)

        return shard_sequence(decode, params, tokens_BT)

    def token_losses(self, params: Params, tokens_BT1: Int[Array, "B T+1"]) -> Float[Array, "B T"]:
        """Return the cross-entropy of each token after the first, in float32 nats. It has a gradient only
        where the head is too small for pieces (`cross_entropy.needs_pieces`). An objective may judge by a
        bound of its own."""
        if self.loss_is_bound:
            decoder = self._decoder(params)
            return cast(Any, decoder.objective).judge(Forward(decoder, None), tokens_BT1)
        return self._losses(params, tokens_BT1, 0.0)[0].loss_BT

    def loss(
        self, params: Params, tokens_BT1: Int[Array, "B T+1"], z_loss: float, clock: StepClock | None = None
    ) -> tuple[Float[Array, ""], dict[str, Any]]:
        """Return the loss that is minimised, and a dict of its parts. `loss` is the mean cross-entropy per
        token in float32 nats; `z` is the mean squared log-partition (arXiv:2204.02311, section 5), weighted
        by `z_loss`; `signals` holds the RouterStats of layers with experts by stored path, whose auxiliary
        losses are added."""
        if self._decoder(params).objective is not None:
            return self._own_objective(params, tokens_BT1, clock)
        losses, (signals, auxiliary) = self._losses(params, tokens_BT1, z_loss, clock)
        target_BT = tokens_BT1[:, 1:]
        metrics = {
            "loss": mean_over_targets(losses.loss_BT, target_BT, self.has_empty_places),
            "z": mean_over_targets(jnp.square(losses.partition_BT), target_BT, self.has_empty_places),
            "signals": signals,
        }
        return _add_auxiliary(losses.mean, signals, auxiliary), metrics

    def _own_objective(
        self, params: Params, tokens_BT1: Array, clock: StepClock | None
    ) -> tuple[Array, dict[str, Any]]:
        """Return the loss and its parts of an objective that the config chooses."""
        result, forward = run_objective(self._decoder(params), tokens_BT1, clock)
        terms = sum(forward.auxiliary[1:], forward.auxiliary[0]) if forward.auxiliary else None
        metrics = {"loss": jnp.mean(result.loss_BT), "z": jnp.float32(0), "signals": forward.signals}
        return _add_auxiliary(result.minimised, forward.signals, terms), metrics

    @property
    def loss_is_bound(self) -> bool:
        """True if the objective judges by an upper bound (`judge`) instead of the next token's loss."""
        return hasattr(self.spec.configured_objective.entry.implementation, "judge")

    @property
    def has_empty_places(self) -> bool:
        """True if rows may have places without a token, -1, which are no target."""
        return self.spec.padding_token is not None

    @property
    def asks_clock(self) -> bool:
        """True if training depends on the place of a step in its run."""
        return self._asks_clock

    @functools.cached_property
    def _asks_clock(self) -> bool:
        return nnx.merge(self._graph, self._abstract).asks_clock

    def _losses(
        self, params: Params, tokens_BT1: Array, z_loss: float, clock: StepClock | None = None
    ) -> tuple[MeanLoss, _Statistics]:
        """Return the loss of each token and their mean, and the layers' statistics."""
        inputs_BT, target_BT = tokens_BT1[:, :-1], tokens_BT1[:, 1:]
        is_large = needs_pieces(target_BT.size, self.spec.table_rows)
        if not is_large or self.spec.head.name != "linear":
            logits_BTV, statistics = self._decode(params, inputs_BT, clock)
            return loss_of_logits(logits_BTV, target_BT, z_loss, self.has_empty_places), statistics

        def run_layers(params: Params, tokens_BT: Array) -> tuple[Array, _Statistics]:
            output = self._decoder(params).run_layers(tokens_BT, clock)
            return output.x_BTD, (output.signals, output.auxiliary)

        x_BTD, statistics = shard_sequence(run_layers, params, inputs_BT)
        table_VD = self._decoder(params).head_table[...].astype(jnp.float32)
        vocabulary = self.shape.vocabulary if self._has_padding else None
        terms = LossTerms(z_loss, self.spec.config.logit_softcap, vocabulary, self.has_empty_places)
        return loss_in_pieces(x_BTD, table_VD, target_BT, terms), statistics

    @property
    def _has_padding(self) -> bool:
        return self.spec.table_rows > self.shape.vocabulary

    def _decoder(self, params: Params) -> Decoder:
        return cast(Decoder, self.module(params))

    def _saved_values(self) -> tuple[float, float, float]:
        shape, contexts = self.shape, self.spec.executed_contexts
        attention = [self.spec.attention.executed_flops(context) for context in contexts]
        feedforward = [self.spec.feedforward.executed_flops(context) for context in contexts]
        scores = sum(m.activations / (4 * shape.head_width) for m in attention if not m.rescored)
        hidden = sum(matmuls.total / (2 * shape.width) for matmuls in feedforward)
        products = shape.layers * (6 * shape.width + 4 * shape.heads * shape.head_width) + hidden
        tokens = self.spec.per_device_batch * self.spec.sequence_length / self.spec.sequence_shards
        return products, scores, 8 * min(self.spec.table_rows, LOSS_PIECE_VALUES / tokens)


def _add_auxiliary(loss: Array, signals: dict[str, RouterStats], other_terms: Array | None) -> Array:
    terms = [jnp.sum(stats.auxiliary) for stats in signals.values() if stats.auxiliary is not None]
    return sum(terms if other_terms is None else [*terms, other_terms], loss)


def build_text_model(config: Config, vocabulary: int, end_token: int | None) -> TextModel:
    """Build the decoder of a run. Raises UserError for a config that has none. `end_token` ends a document,
    for a config that masks documents or packs them."""
    _check_sockets(config)
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
    spec = replace(spec, pipeline=pipeline, products=config.compute.products, objective=config.objective)
    if config.data.packing is Packing.best_fit:
        spec = replace(spec, padding_token=end_token or 0)
    check_stream(spec, DTYPES[compute.dtype])
    return TextModel.assemble(spec, compute)


def _check_sockets(config: Config) -> None:
    """Raise UserError where a node of one's own meets a setting that it cannot follow."""
    objective, model = config.objective.name, config.model
    if objective != "next_token" and config.loss.z_loss:
        raise UserError(
            f"loss.z_loss={config.loss.z_loss} is a term of the next-token loss, but objective.name="
            f"{objective} says itself what is minimised. Set loss.z_loss=0."
        )
    if objective != "next_token" and config.data.packing is Packing.best_fit:
        raise UserError(
            f"data.packing=best_fit leaves places of rows empty, and objective.name={objective} may make "
            "targets of them. Set data.packing=concatenate, or objective.name=next_token."
        )
    names = {"objective": objective, "model.embedding": model.embedding.name, "model.head": model.head.name}
    defaults = ("next_token", "table", "linear")
    custom_nodes = [f"{key}.name={name}" for key, name in names.items() if name not in defaults]
    if custom_nodes and config.mesh.context > 1:
        raise UserError(
            f"mesh.context={config.mesh.context} splits sequences, but {custom_nodes[0]} works on whole"
            " ones. Set it to 1, and raise mesh.data, mesh.fsdp or mesh.tensor instead."
        )
