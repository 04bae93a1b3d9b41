"""Sizes, parameters by kind and FLOPs of a model in closed form, exact for our own models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.config.schema.run import Config
from harness.core.errors import UserError
from harness.estimate.layout_limits import LayoutLimits, layout_limits
from harness.estimate.precision import MIXED, TrainingPrecision, run_precision
from harness.records.run.provenance import Facts

TRAIN_FLOPS_MULTIPLE = 3
"""Products per forward product in training: forward, and one for each of the two factors backward."""


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
    """Width of one expert, if there are any."""
    vocabulary: int
    sequence: int
    """Tokens of a sequence."""
    batch: int
    """Sequences per step."""
    parameters: int
    """All parameters, with embedding and head."""
    embedding: int
    """Parameters of the embedding, and of the head if it is a matrix of its own."""
    active_parameters: int
    """Parameters that one token passes through, without `embedding`."""
    flops_per_token: float
    """Model FLOPs of one trained token, causal: 6 (active + width x vocabulary) + attention's."""
    gated: bool = True
    experts: int = 0
    """Routed experts of a layer; 0: dense."""
    top_k: int = 0
    shared_experts: int = 0
    """Experts per layer that every token passes through."""
    expert_parameters: int = 0
    """Parameters of the routed experts of all layers, which the expert axis splits."""
    gathers_expert_weights: bool = False
    """True if experts' weights are gathered where tokens are; False if tokens are sent to experts."""
    tokens: int | None = None
    """Token budget of the whole run; None: the model has none."""
    precision: TrainingPrecision = MIXED
    """Dtypes that the model is trained in."""
    parameters_by_axes: tuple[tuple[tuple[str, ...], int], ...] = ()
    """Parameters by the axes that split them; empty: not known, so `fsdp` and `tensor` are taken to split
    all, and `expert` the routed experts."""
    table_rows: int | None = None
    """Rows of embedding and head; None: one for each token of the vocabulary."""
    saved_scores: float = 0.0
    """Attention scores of one token in all layers that a run of the harness writes out."""
    scanned: bool = True
    """True if the layers are a loop, so that what they keep for the backward pass is stored for each turn."""
    kept_bytes: float | None = None
    """Bytes of one token that the backward pass keeps, counted in a whole model of a user's own; None: layers
    are known, and it follows from them."""
    limits: LayoutLimits | None = None
    """Layouts that a run of the harness can be trained in; None: a model of others, in any layout."""
    block: str = ""
    """Block of runs that get equally many chips; empty: the run has no sibling."""

    @property
    def rows(self) -> int:
        """Return the rows of embedding and head."""
        return self.table_rows or self.vocabulary

    @property
    def dense_parameters(self) -> int:
        """Return the parameters that the expert axis does not split."""
        return self.parameters - self.expert_parameters

    @property
    def tokens_per_step(self) -> int:
        """Return the tokens of one optimizer step."""
        return self.batch * self.sequence

    @property
    def step_flops(self) -> float:
        """Return the model FLOPs of one optimizer step."""
        return self.flops_per_token * self.tokens_per_step

    @property
    def experts_per_token(self) -> int:
        """Return the feed-forward blocks that a token passes through in a layer; 1 without experts."""
        return self.top_k + self.shared_experts if self.experts else 1

    @property
    def attention_flops(self) -> float:
        """Return the part of `flops_per_token` that is no product with a weight."""
        weights = self.active_parameters + self.width * self.vocabulary
        return max(0.0, self.flops_per_token - 2 * TRAIN_FLOPS_MULTIPLE * weights)

    @property
    def expert_flops(self) -> float:
        """Return the part of `flops_per_token` in products with routed experts' weights."""
        if not self.experts:
            return 0.0
        return 2 * TRAIN_FLOPS_MULTIPLE * self.expert_parameters * self.top_k / self.experts


def causal_attention_flops(layers: int, heads: int, head_width: int, sequence: int) -> float:
    """Return attention FLOPs of one trained token: scores and values against the mean of (S + 1) / 2 visible
    keys, 2 FLOPs each, forward and twice that backward."""
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
    """Return a decoder as `harness.models` builds it (mha or gqa, swiglu or moe), counted in closed form."""
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
    """Return the shape of one of our own runs, with the sizes and counts from `harness.worker.describe`."""
    shape, options = facts.shape, dict(config.model.feedforward.options)
    moe = config.model.feedforward.name == "moe"
    experts = int(options.get("experts", 8)) if moe else 0
    # In a feed-forward, only parameters of routed experts have axes [experts, in, out].
    routed = sum(
        math.prod(dims)
        for path, dims in facts.paths.items()
        if experts > 0 and ".feedforward." in path and len(dims) == 3 and dims[0] == experts
    )
    sizes: dict[str, Any] = {
        key: shape[key] if facts.is_known else unknown
        for key, unknown in (("layers", 1), ("width", 0), ("heads", 0), ("head_width", 0), ("ffn", 0))
    }
    tokens = config.scale.batch // config.compute.microbatches * config.data.sequence_length
    return ModelShape(
        **sizes,
        vocabulary=shape["vocabulary"],
        name=name or f"{config.scale.name}/{config.variant.name}",
        kv_heads=int(config.model.attention.options.get("kv_heads") or sizes["heads"]),
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
        table_rows=facts.table_rows if facts.is_known else 1,
        kept_bytes=None if facts.is_known else facts.activation_bytes / tokens,
        saved_scores=facts.saved_scores,
        scanned=facts.scanned,
        limits=layout_limits(config, facts),
        block=f"{config.scale.name}/seed{config.seed}",
    )


def read_number(row: Mapping[str, Any], key: str) -> float | None:
    """Return a column as a number; None if it is empty, missing or not numeric."""
    value = row.get(key)
    try:
        result = float(str(value).replace(",", ""))
    except ValueError:
        return None
    return result if math.isfinite(result) else None


def require_number(row: Mapping[str, Any], key: str) -> float:
    """Return a column as a number above 0. Raises UserError if there is none."""
    value = read_number(row, key)
    if value is None or value <= 0:
        raise UserError(f"{row.get('id') or 'the row'}: {key}={row.get(key)!r} must be a number above 0.")
    return value
