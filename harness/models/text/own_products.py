"""Products of a decoder that belong to no layer's mechanism: those of block, stream, embedding, head and
objective."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from harness.config.schema.run import ComputeConfig, ModelConfig, ModuleConfig
from harness.models.counting.mechanisms import abstract_side_inputs, count_module
from harness.models.execution.pipeline import PipelineSchedule
from harness.models.kernels import CPU
from harness.models.mechanism import MatmulFlops
from harness.models.model_spec import ModelSpec
from harness.models.text.decoder import Decoder
from harness.models.text.objective import run_objective
from harness.models.text.stream_check import check_stream

_NODES = ("block", "embedding", "head")
_COUNTED: dict[str, MatmulFlops] = {}
"""Counts of this process by spec."""


def own_products(spec: ModelSpec) -> MatmulFlops:
    """Return the FLOPs of a trained token's forward pass beside those that attention, feed-forward layer and
    the products with the head's table declare; none for the blocks, ends and objective of a plain decoder.
    Below zero if a block does not call a mechanism. Raises UserError for a block that its stream does not
    fit."""
    default, is_plain = ModelConfig(), spec.objective == ModuleConfig("next_token")
    if is_plain and all(getattr(spec.config, node) == getattr(default, node) for node in _NODES):
        return MatmulFlops()
    spec = replace(spec, sequence_shards=1, target=CPU, pipeline=PipelineSchedule())
    if (key := repr(spec)) not in _COUNTED:
        _COUNTED[key] = _count(spec)
    return _COUNTED[key]


def _count(spec: ModelSpec) -> MatmulFlops:
    check_stream(spec)
    decoder = Decoder(spec, ComputeConfig())
    side_inputs = abstract_side_inputs(spec.outer_context, {})

    def apply(decoder: Decoder, tokens_BT1: Any, clock: Any) -> Any:
        clock = clock if decoder.asks_clock else None
        if decoder.objective is not None:
            loss, forward = run_objective(decoder, tokens_BT1, clock)
            return loss, forward.auxiliary
        output = decoder.run_layers(tokens_BT1[:, :-1], clock)
        return decoder.logits(output.x_BTD), output.auxiliary

    tokens_BT1 = jax.ShapeDtypeStruct((spec.per_device_batch, spec.sequence_length + 1), jnp.int32)
    tokens = spec.per_device_batch * spec.sequence_length
    whole = count_module(decoder, apply, tokens_BT1, side_inputs.clock, tokens=tokens)
    parts = [
        part.executed_flops(c) for c in spec.executed_contexts for part in (spec.attention, spec.feedforward)
    ]
    declared = sum(parts, MatmulFlops(weights=2.0 * spec.shape.width * spec.table_rows))
    return MatmulFlops(
        whole.weights - declared.weights - declared.final, whole.activations - declared.activations
    )
