"""What a plan needs to know of a model: sizes, parameters by kind, FLOPs. Closed form, exact for our own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.config.schema.run import Config, ModelFamily
from harness.core.errors import UserError
from harness.plan.cost_model.precision import MIXED, TrainingPrecision, run_precision
from harness.records.run.provenance import Facts

TRAIN_FLOPS_MULTIPLE = 3
"""Forward, and one product for each of the two factors of every product backward."""


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A decoder, dense or with experts, and how much of it one step trains. Counts are of parameters."""

    name: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    ffn: int
    """Of one expert, where there are any."""
    vocabulary: int
    sequence: int
    """Tokens."""
    batch: int
    """Sequences a step."""
    parameters: int
    """All, with embedding and head."""
    embedding: int
    """Embedding, and head where it is a matrix of its own."""
    active_parameters: int
    """Without `embedding`: those that one token passes through."""
    flops_per_token: float
    """Model FLOPs of one trained token, causal: 6 (active + width x vocabulary) + attention's."""
    gated: bool = True
    experts: int = 0
    """Routed experts of a layer; 0: dense."""
    top_k: int = 0
    shared_experts: int = 0
    """Experts that every token passes through."""
    expert_parameters: int = 0
    """In the routed experts of all layers: what the expert axis splits."""
    gathers_expert_weights: bool = False
    """Whether experts' weights are gathered where tokens are, and tokens not sent to experts."""
    tokens: int | None = None
    """Budget of the whole run; None: not asked."""
    precision: TrainingPrecision = MIXED
    """What it is trained in."""
    parameters_by_axes: tuple[tuple[tuple[str, ...], int], ...] = ()
    """Parameters by the axes that split them; empty: not known, so `fsdp` and `tensor` are taken to split all
    and `expert` those of routed experts."""
    block: str = ""
    """Runs of one block get equally many chips; empty: it has no sibling."""

    @property
    def non_embedding(self) -> int:
        return self.parameters - self.embedding

    @property
    def dense_parameters(self) -> int:
        """All that the expert axis does not split."""
        return self.parameters - self.expert_parameters

    @property
    def tokens_per_step(self) -> int:
        return self.batch * self.sequence

    @property
    def step_flops(self) -> float:
        """Model FLOPs of one optimizer step."""
        return self.flops_per_token * self.tokens_per_step

    @property
    def attention_flops(self) -> float:
        """Of `flops_per_token`, what is no product with a weight."""
        return max(
            0.0,
            self.flops_per_token
            - 2 * TRAIN_FLOPS_MULTIPLE * (self.active_parameters + self.width * self.vocabulary),
        )

    @property
    def expert_flops(self) -> float:
        """Of `flops_per_token`, what is multiplied by routed experts' weights."""
        if not self.experts:
            return 0.0
        return 2 * TRAIN_FLOPS_MULTIPLE * self.expert_parameters * self.top_k / self.experts


def causal_attention_flops(layers: int, heads: int, head_width: int, sequence: int) -> float:
    """FLOPs of one trained token: scores and values against the (S + 1) / 2 keys that it sees on average,
    2 FLOPs each, forward and twice that backward."""
    return TRAIN_FLOPS_MULTIPLE * layers * 4.0 * heads * head_width * (sequence + 1) / 2


def decoder_shape(
    *,
    name: str,
    layers: int,
    width: int,
    heads: int,
    head_width: int,
    ffn: int,
    vocabulary: int,
    sequence: int,
    batch: int,
    kv_heads: int | None = None,
    gated: bool = True,
    tied: bool = True,
    qk_norm: bool = True,
    experts: int = 0,
    top_k: int = 0,
    shared_experts: int = 0,
    balance_bias: bool = True,
    tokens: int | None = None,
) -> ModelShape:
    """A decoder as `harness.models` builds it (mha or gqa, swiglu or moe), counted without building it."""
    groups = heads if kv_heads is None else kv_heads
    attention = 2 * width * head_width * (heads + groups) + (2 * head_width if qk_norm else 0)
    matrix = (3 if gated else 2) * width * ffn
    routed = experts * matrix
    always_used = (shared_experts * matrix + width * experts + balance_bias * experts) if experts else matrix
    without_routed = layers * (2 * width + attention + always_used) + width
    embedding = vocabulary * width * (1 if tied else 2)
    active = without_routed + layers * top_k * matrix
    products = layers * (2 * width * head_width * (heads + groups) + (shared_experts + top_k) * matrix)
    products += layers * (width * experts if experts else matrix) + width * vocabulary
    attention_flops = causal_attention_flops(layers, heads, head_width, sequence)
    return ModelShape(
        name=name,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=groups,
        head_width=head_width,
        ffn=ffn,
        vocabulary=vocabulary,
        sequence=sequence,
        batch=batch,
        parameters=without_routed + layers * routed + embedding,
        embedding=embedding,
        active_parameters=active,
        flops_per_token=2 * TRAIN_FLOPS_MULTIPLE * products + attention_flops,
        gated=gated,
        experts=experts,
        top_k=top_k,
        shared_experts=shared_experts,
        expert_parameters=layers * routed,
        tokens=tokens,
    )


def shape_from_facts(config: Config, facts: Facts, name: str | None = None) -> ModelShape:
    """The shape of one of our own runs: sizes and counts are those that `harness.worker.describe` found."""
    shape, options = facts.shape, dict(config.model.feedforward.options)
    moe = config.model.kind is ModelFamily.decoder and config.model.feedforward.name == "moe"
    experts = int(options.get("experts", 8)) if moe else 0
    routed = sum(
        math.prod(dims) for path, dims in facts.paths.items() if _is_routed_expert(path, dims, experts)
    )
    heads = shape["heads"]
    return ModelShape(
        name=name or f"{config.scale.name}/{config.variant.name}",
        layers=shape["layers"],
        width=shape["width"],
        heads=heads,
        kv_heads=int(config.model.attention.options.get("kv_heads") or heads),
        head_width=shape["head_width"],
        ffn=shape["ffn"],
        vocabulary=shape["vocabulary"],
        sequence=config.data.sequence_length,
        batch=config.scale.batch,
        parameters=facts.parameters,
        embedding=facts.embedding,
        active_parameters=facts.active_parameters or facts.non_embedding,
        flops_per_token=facts.flops_per_token,
        experts=experts,
        top_k=int(options.get("top_k", 2)) if moe else 0,
        shared_experts=int(options.get("shared", 0)) if moe else 0,
        expert_parameters=routed,
        gathers_expert_weights=moe and options.get("dispatch", "dropless") == "dropless",
        tokens=config.scale.tokens,
        precision=run_precision(config, facts),
        parameters_by_axes=tuple((tuple(axes.split()), count) for axes, count in facts.splits.items()),
        block=f"{config.scale.name}/seed{config.seed}",
    )


def _is_routed_expert(path: str, dims: list[int], experts: int) -> bool:
    """Of a feed-forward, only the matrices of the routed experts have three axes: [experts, in, out]."""
    return experts > 0 and ".feedforward." in path and len(dims) == 3 and dims[0] == experts


def read_number(row: Mapping[str, Any], key: str) -> float | None:
    """A column as a number; None where it is empty, missing or says nothing numeric."""
    value = row.get(key)
    try:
        result = float(str(value).replace(",", ""))
    except ValueError:
        return None
    return result if math.isfinite(result) else None


def require_number(row: Mapping[str, Any], key: str) -> float:
    """The same of a column that nothing can be said without. Raises UserError."""
    value = read_number(row, key)
    if value is None or value <= 0:
        raise UserError(f"{row.get('id') or 'the row'}: {key}={row.get(key)!r} is no number: give {key}.")
    return value
