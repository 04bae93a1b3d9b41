"""The decoder: embedding, layers (unrolled or scanned), norm, head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array

from harness.config.schema.run import ComputeConfig
from harness.models.execution.layer_stack import LayerStack, apply_layers, build_layers
from harness.models.layers import DTYPES, Rotary, gather_rounded, matmul_by_rows
from harness.models.mechanism import RouterStats
from harness.models.model_spec import ModelSpec
from harness.models.mup import relative_width
from harness.models.parameters import weight
from harness.models.sockets.entries import OBJECTIVE_ARGUMENTS
from harness.models.sockets.side_inputs import CLOCK_NAMES, SIDE_INPUTS, SideInputs, asked_names, check_names
from harness.models.step_clock import StepClock
from harness.models.text.embedding import lookup_rows
from harness.models.text.layer import Carry, apply_layer, build_layer, layer_requests
from harness.parallel.sharding.axis_rules import reshape_rows
from harness.parallel.sharding.sequence_parallel import all_gather_sequence, num_shards

OUTER_SIDE_INPUTS = tuple(name for name in SIDE_INPUTS if name not in ("rotary", "visit"))
"""Names of SIDE_INPUTS that what stands outside of the layers may ask for."""


def document_index(tokens_BT: Array, end: int) -> Array:
    """Return the index of each token's document, int32 [B, T]. The end token is its document's last."""
    ends_BT = (tokens_BT == end).astype(jnp.int32)
    return jnp.cumsum(ends_BT, axis=1) - ends_BT


class LayersOutput(NamedTuple):
    """Result of the layers."""

    x_BTD: Array
    """Normalised output of the last layer: what the head multiplies."""
    signals: dict[str, RouterStats]
    """Router statistics of layers with experts by stored path."""
    auxiliary: Array | None
    """Sum of the terms that mechanisms add to the training loss, beside those of experts."""
    given_arrays: dict[str, Array]
    """Arrays that mechanisms gave, by name."""


class Decoder(nnx.Module):
    """Map tokens [B, T] to float32 logits [B, T, V] and RouterStats of layers with experts by stored path.

    V counts the rows of the table; those past the vocabulary are no token, and their logits are -inf.
    """

    def __init__(self, spec: ModelSpec, compute: ComputeConfig):
        config, shape = spec.config, spec.shape
        V, D, table_width = spec.table_rows, shape.width, spec.table_width
        self.vocabulary = shape.vocabulary
        self.dtype, self.remat = DTYPES[compute.dtype], compute.remat
        self.head_width, self.rope_base = shape.head_width, config.rope_base
        self.end_token, self.padding_token = spec.end_token, spec.padding_token
        self.microbatches = spec.pipeline.microbatches
        self.relative_width, self.logit_softcap = relative_width(config, D), config.logit_softcap
        self.order = spec.order if spec.block.entry.order else None
        self.embedding = weight((V, table_width), ("vocabulary", "width"), fan_in=table_width)
        self.input = spec.embedding.build(spec.context(0))
        scan = compute.scan_layers is True
        self.stacking, self.repeats, self.layers = build_layers(build_layer, spec, scan)
        stream = spec.block.entry.stream
        self.stream = None if stream is None else stream(spec.outer_context, spec.block.options)
        self.norm = spec.outer_context.norm(D)
        self.head = None if config.tie_embeddings else weight((V, D), ("vocabulary", "width"), fan_in=D)
        self.output = spec.head.build(spec.outer_context)
        self.has_plain_head = spec.head.name == "linear"
        objective, new_layer = spec.configured_objective, partial(build_layer, spec)
        is_plain = objective.name == "next_token"
        self.objective = None if is_plain else objective.build(spec.outer_context, new_layer)
        self.requests = frozenset(self._check_requests(spec))

    def __call__(self, tokens_BT: Array) -> tuple[Array, dict[str, RouterStats]]:
        """Map token ids [B, T] to logits [B, T, V] and router statistics by stored path."""
        output = self.run_layers(tokens_BT)
        return self.logits(output.x_BTD), output.signals

    def run_layers(
        self,
        tokens_BT: Array,
        clock: StepClock | None = None,
        given_arrays: Mapping[str, Array] | None = None,
    ) -> LayersOutput:
        """Map token ids [B, T] to what the head multiplies. `clock`: the place of the step in training;
        `given_arrays`: arrays for the mechanisms that ask for them."""
        tokens_BT = self._filled(tokens_BT)
        documents_BT = self.documents(tokens_BT)
        rotary = self.rotary(num_shards() * tokens_BT.shape[1])
        first = SideInputs(
            rotary.with_documents(documents_BT), tokens_BT, None, clock, dict(given_arrays or {})
        )
        x_BTD, embedding_gives = self._embed(tokens_BT, first)
        rows = (
            documents_BT,
            tokens_BT if "tokens_BT" in self.requests else None,
            x_BTD if "x0_BTD" in self.requests else None,
            first.given_arrays | embedding_gives,
        )

        def side_inputs(rows: Any) -> SideInputs:
            documents_BT, tokens_BT, x0_BTD, given_arrays = rows
            return SideInputs(
                rotary.with_documents(documents_BT), tokens_BT, x0_BTD, clock, dict(given_arrays)
            )

        stack = LayerStack(self.repeats, self.layers, self.remat, self.microbatches, apply_layer, self.order)
        opened = Carry(self._at_end("open", x_BTD, side_inputs(rows)), {})
        carry, statistics = apply_layers(stack, opened, rows, side_inputs)
        arrays = first.given_arrays | embedding_gives | carry.given_arrays
        x_BTD = self._at_end("close", carry.stream, replace(side_inputs(rows), given_arrays=arrays))
        x_BTD = self._scale(self.norm(x_BTD), self.relative_width**-0.5)
        signals = {path: stats.router for path, stats in statistics.items() if stats.router is not None}
        terms = [jnp.sum(stats.auxiliary) for stats in statistics.values() if stats.auxiliary is not None]
        return LayersOutput(x_BTD, signals, sum(terms[1:], terms[0]) if terms else None, arrays)

    def rotary(self, length: int) -> Rotary:
        """Return the rotation that layers share, for a sequence of this length."""
        return Rotary.table(length, self.head_width, self.rope_base)

    def _filled(self, tokens_BT: Array) -> Array:
        """Return the tokens with one at each empty place of a row: behind the last end token, that is a
        document of its own."""
        if self.padding_token is None:
            return tokens_BT
        return jnp.where(tokens_BT < 0, self.padding_token, tokens_BT)

    def documents(self, tokens_BT: Array) -> Array | None:
        """Return the index of each token's document in the full sequence; None if they are not masked."""
        if self.end_token is None:
            return None
        return document_index(all_gather_sequence(tokens_BT), self.end_token)

    @property
    def head_table(self) -> nnx.Param:
        """Table [V, D] of the head."""
        return self.embedding if self.head is None else self.head

    @property
    def asks_clock(self) -> bool:
        """True if anything asks for the place of a step in its run."""
        return bool(self.requests & CLOCK_NAMES)

    def embed_rows(self, tokens_BT: Array) -> Array:
        """Return the tokens' rows of the embedding table, in compute precision."""
        x_BTD = lookup_rows(gather_rounded(self.embedding, self.dtype), tokens_BT, self.dtype)
        return self._scale(x_BTD, self.relative_width**0.5)

    def _embed(self, tokens_BT: Array, side_inputs: SideInputs) -> tuple[Array, dict[str, Array]]:
        """Return the input of the first layer, and what the embedding gives."""
        names = asked_names(type(self.input).__call__, 2)
        output = self.input(self.embed_rows(tokens_BT), **side_inputs.answers(names, 0, 3))
        return (output[0], dict(output[1].gives)) if isinstance(output, tuple) else (output, {})

    def _at_end(self, end: str, stream: Any, side_inputs: SideInputs) -> Any:
        """Open the stream from the embedding, or close it; without a stream of its own it is x."""
        if self.stream is None:
            return stream
        call = getattr(type(self.stream), end)
        return call(self.stream, stream, **side_inputs.answers(asked_names(call, 2), 0, 4))

    def logits(self, x_BTD: Array) -> Array:
        """Map what the head multiplies to float32 logits [B, T, V]."""
        logits_BTV = self.output(x_BTD, self._unembed)
        return logits_BTV if self.has_plain_head else self._only_tokens(logits_BTV)

    def _unembed(self, x_BTD: Array) -> Array:
        """Return the products with the rows of the table, float32 [B, T, V]."""
        table_VD = gather_rounded(self.head_table, self.dtype)
        B, T, D = x_BTD.shape
        x_ND = reshape_rows(x_BTD, (B * T, D), None)
        logits_NV = matmul_by_rows(x_ND, table_VD, (None, "vocabulary"), jnp.dtype(jnp.float32))
        if self.logit_softcap is not None:
            logits_NV = self.logit_softcap * jnp.tanh(logits_NV / self.logit_softcap)
        return reshape_rows(self._only_tokens(logits_NV), (B, T, -1), None, "vocabulary")

    def _only_tokens(self, logits_ZV: Array) -> Array:
        """Set the logits of rows that are no token to -inf."""
        rows = logits_ZV.shape[-1]
        if self.vocabulary == rows:
            return logits_ZV
        return jnp.where(jnp.arange(rows) < self.vocabulary, logits_ZV, -jnp.inf)

    def _scale(self, x_BTD: Array, factor: float) -> Array:
        """Multiply by a factor of `models.mup`. At the base width nothing is added to the program."""
        return x_BTD if self.relative_width == 1 else x_BTD * factor

    def _check_requests(self, spec: ModelSpec) -> Iterator[str]:
        """Yield every name that is asked for. Raises UserError if nothing tells it."""
        for layer in (*self.repeats, *self.layers):
            for _, requests in layer_requests(spec, layer):
                yield from requests
        outer = [(f"model.embedding.name={spec.embedding.name}", type(self.input).__call__, 2)]
        outer.append((f"model.head.name={spec.head.name}", type(self.output).__call__, 3))
        if self.stream is not None:
            key = f"model.block.name={spec.block.name}"
            outer += [(key, getattr(type(self.stream), end), 2) for end in ("open", "close")]
        if self.objective is not None:
            key = f"objective.name={spec.configured_objective.name}"
            outer.append((key, type(self.objective).__call__, OBJECTIVE_ARGUMENTS))
        for key, call, own in outer:
            requests = asked_names(call, own)
            check_names(key, requests, spec.gives, OUTER_SIDE_INPUTS)
            yield from requests
