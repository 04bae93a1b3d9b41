"""Ranges of the config's numbers, beside the types of the schema."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Range:
    """Finite numbers from `low` to `high`; an open end is not included."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        """Return whether the number is finite and inside; NaN is not."""
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below and abs(value) < math.inf

    def __str__(self) -> str:
        """Return the range in words, such as `a finite number, above 0 and at most 1`."""
        low = f"above {self.low:g}" if self.open_low else f"at least {self.low:g}"
        high = f"below {self.high:g}" if self.open_high else f"at most {self.high:g}"
        ends = [text for text, end in ((low, self.low), (high, self.high)) if abs(end) < math.inf]
        return ", ".join(["a finite number", " and ".join(ends)] if ends else ["a finite number"])


FINITE = Range()
COUNT = Range(1)
NOT_NEGATIVE = Range(0)
POSITIVE = Range(0, open_low=True)
SHARE = Range(0, 1)
INNER_SHARE = Range(0, 1, open_low=True, open_high=True)

_KEYS: Mapping[Range, str] = {
    COUNT: """
        roster.vocabulary roster.image.* scale.parameters scale.tokens scale.batch model.width model.layers
        model.heads model.ffn model.head_width model.base_width model.patch model.vocabulary_multiple
        finetune.rank finetune.trainable_layers compute.microbatches data.sequence_length data.horizon
        data.vocabulary data.order_block
        optimizer.ns_steps evaluation.points evaluation.every_tokens evaluation.tokens checkpoint.every
        checkpoint.every_tokens checkpoint.keep_last mesh.data mesh.fsdp mesh.tensor mesh.expert mesh.context
        mesh.pipeline cluster.kinds.*.chips cluster.kinds.*.scale_up_domain cluster.power_overhead
        engine.slurm.cpus engine.processes engine.attempts profile.first profile.last
        """,
    NOT_NEGATIVE: """
        data.sources.*.weight data.stages.*.weights.* optimizer.learning_rate optimizer.weight_decay
        optimizer.groups.*.learning_rate optimizer.groups.*.weight_decay
        loss.z_loss checkpoint.keep_every cluster.restart_minutes schedule.warmup_tokens
        engine.slurm.save_seconds engine.slurm.gpus engine.workers engine.devices engine.backoff_seconds
        rule.margin rule.bet_margin gate.quality gate.speed gate.memory gate.stability seed data_seed
        tune.seed data.end_token evaluation.decontaminate
        """,
    POSITIVE: """
        rule.target rule.drift rule.drift_df rule.margin_nats scale.learning_rate checkpoint.every_minutes
        model.rope_base model.norm_epsilon finetune.alpha optimizer.epsilon optimizer.clip_norm
        model.logit_softcap
        cluster.kinds.*.memory_gib cluster.kinds.*.memory_gb_s cluster.kinds.*.peak_tflops.*
        cluster.kinds.*.scale_up_gb_s cluster.kinds.*.scale_out_gb_s cluster.kinds.*.watts
        cluster.kinds.*.mtbf_device_years cluster.site_megawatts cluster.checkpoint_gb_s engine.stall_seconds
        engine.opaque_seconds
        """,
    SHARE: "data.stages.*.start data.label_dropout schedule.warmup schedule.cooldown schedule.floor",
    INNER_SHARE: "data.holdout schedule.branches.* rule.alpha",
    Range(0, 1, open_high=True): "optimizer.b1 optimizer.b2 optimizer.momentum",
    Range(3): "tune.points",
    Range(1, open_low=True): "tune.factor",
}
RANGES: Mapping[str, Range] = {key: interval for interval, keys in _KEYS.items() for key in keys.split()}
"""Range by dotted key; `*` is a position of a list or a name that the user gives."""


def numbers(node: Any, key: str = "", pattern: str = "") -> Iterator[tuple[str, str, float]]:
    """Yield (dotted key, the key with `*` as in RANGES, value) of every number of a typed config."""
    if dataclasses.is_dataclass(node):
        children = [(f.name, f.name, getattr(node, f.name)) for f in dataclasses.fields(node)]
    elif isinstance(node, dict | list):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        children = [(str(name), "*", child) for name, child in items]
    else:
        children = []
        if isinstance(node, int | float) and not isinstance(node, bool):
            yield key, pattern, node
    for name, part, child in children:
        yield from numbers(child, f"{key}.{name}".lstrip("."), f"{pattern}.{part}".lstrip("."))
