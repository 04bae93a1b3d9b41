"""Fairness table above every verdict: parameters, FLOPs, data and tuning of each variant at each scale."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.compare.inputs.json_values import dict_or_empty, number_or_none
from harness.compare.inputs.lr_tuning import RateCurve
from harness.compare.inputs.pairing import group_by_variant
from harness.compare.inputs.run_records import RunRecord
from harness.compare.results.context_types import FairnessRow
from harness.compare.verdict.flags import size_flags, tuning_flags
from harness.records.run.provenance import Facts


def fairness_rows(
    runs: Sequence[RunRecord], scales: Sequence[str], control: str, tuning: Mapping[str, Any]
) -> tuple[FairnessRow, ...]:
    """Build one row per scale and variant, the control first. Runs of one variant that were given something
    else, such as other steps, have a row of their own below it."""
    rows = []
    for scale in scales:
        variants = {name: _alike(group) for name, group in group_by_variant(runs, scale, control).items()}
        reference = variants[control][0][0] if control in variants else None
        rows += [_row(group, reference, control, tuning) for groups in variants.values() for group in groups]
    return tuple(rows)


def _alike(runs: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """Group the runs of one variant by what they were given, the largest group first. Runs whose facts are
    not known count with it."""
    groups: dict[tuple, list[RunRecord]] = {}
    for run in runs:
        groups.setdefault(_given(run), []).append(run)
    known = sorted((group for key, group in groups.items() if any(key)), key=len, reverse=True)
    unknown = [run for key, group in groups.items() if not any(key) for run in group]
    return [[*known[0], *unknown], *known[1:]] if known else [unknown]


def _given(run: RunRecord) -> tuple:
    """Return what a row shows of a run and the seeds of a variant share; zeros if its record is damaged."""
    facts = run.provenance.facts
    if not facts.steps:
        return (0,)
    sizes = facts.parameters, facts.non_embedding, facts.trainable, facts.active_parameters
    cost = facts.flops_per_token, facts.executed_flops_per_token, run.provenance.tokens, facts.steps
    read = facts.data_fingerprint, facts.eval_fingerprint, _mix(run), _tokenizer(run)
    return *sizes, *cost, *read, _schedule(run.config), _learning_rate(run)


def _row(
    runs: Sequence[RunRecord], reference: RunRecord | None, control: str, tuning: Mapping[str, Any]
) -> FairnessRow:
    first, base = runs[0], reference.provenance.facts if reference else None
    provenance, facts = first.provenance, first.provenance.facts
    codes = {run.provenance.code_hash for run in runs if run.provenance.facts.steps} or {""}
    picks_alike = reference is not None and _picks_examples(first) == _picks_examples(reference)
    example_share = shared_example_share(facts, base) if base and picks_alike else None
    return FairnessRow(
        scale=provenance.scale,
        variant=provenance.variant,
        control=provenance.variant == control,
        seeds=len(runs),
        parameters=facts.parameters,
        non_embedding=facts.non_embedding,
        flops_per_token=facts.flops_per_token,
        executed_flops_per_token=facts.executed_flops_per_token,
        parameters_ratio=facts.non_embedding / base.non_embedding if base and base.non_embedding else None,
        flops_ratio=facts.flops_per_token / base.flops_per_token if base and base.flops_per_token else None,
        tokens=provenance.tokens,
        steps=facts.steps,
        schedule=_schedule(first.config),
        horizon=facts.steps,
        tokenizer=_tokenizer(first),
        data=facts.data_fingerprint,
        evaluation=facts.eval_fingerprint,
        learning_rate=_learning_rate(first),
        tuning=_tuning(tuning.get(provenance.variant)),
        shared=shared_parameter_share(facts, base) if base else None,
        code="mixed" if len(codes) > 1 else codes.pop(),
        touches=tuple(provenance.touches),
        flags=tuple(sorted(_flags(first, reference, tuning))),
        curve=_curve(tuning.get(provenance.variant)),
        mix=_mix(first),
        shared_examples=example_share,
        parting=_first_different_step(first, reference) if reference and example_share is not None else None,
        base=_base_checkpoint(runs),
        trainable=facts.trainable,
        active_parameters=facts.active_parameters,
        kernels="; ".join(facts.kernels),
    )


def shared_parameter_share(facts: Facts, base: Facts) -> float | None:
    """Compute the share of a variant's parameters that the control has under the same path and shape.

    These start bitwise equal if both runs draw their weights or start from one checkpoint. Returns None if
    paths are unknown, 0 if the runs start from different checkpoints.
    """
    if (facts.base or {}).get("checksum") != (base.base or {}).get("checksum"):
        return 0.0
    sizes = {path: math.prod(shape) for path, shape in facts.paths.items()}
    total = sum(sizes.values())
    common = sum(size for path, size in sizes.items() if base.paths.get(path) == facts.paths[path])
    return common / total if total else None


def shared_example_share(facts: Facts, base: Facts) -> float | None:
    """Compute the share of a variant's examples that the control also reads.

    This is exact for runs that pick examples in one way (`_picks_examples`): the run with fewer examples of a
    source reads the first ones of the other run. Returns None if both read the same examples, if the counts
    are unknown, or if the held-out fingerprints show different sources, tokenizers or windows.
    """
    same_data = facts.data_fingerprint == base.data_fingerprint
    if same_data or facts.eval_fingerprint != base.eval_fingerprint or not facts.draws:
        return None
    common = sum(min(count, base.draws.get(source, 0)) for source, count in facts.draws.items())
    return common / sum(facts.draws.values())


def _flags(run: RunRecord, reference: RunRecord | None, tuning: Mapping[str, Any]) -> set[str]:
    if reference is None or run is reference:
        return set()
    a, b = reference.provenance, run.provenance
    return tuning_flags(tuning, a.variant, b.variant, ()) | size_flags(a.facts, b.facts)


def _first_different_step(run: RunRecord, reference: RunRecord) -> int:
    """Return the first step of the first data mix that differs between the two runs; 0 for a curriculum,
    which sorts all that a run reads."""
    orders = [dict_or_empty(member.config.get("data")).get("order") for member in (run, reference)]
    if "length" in orders:
        return 0
    pairs = itertools.zip_longest(run.provenance.facts.mixes, reference.provenance.facts.mixes)
    mixes = next(([*filter(None, pair)] for pair in pairs if pair[0] != pair[1]), [])
    return min((first for first, _ in mixes), default=0)


def _picks_examples(run: RunRecord) -> tuple[Any, ...]:
    """Return what decides which examples of a source a run reads first. A curriculum (order=length) sorts
    those that the random order has first."""
    node = dict_or_empty(run.config.get("data"))
    block = node.get("order_block") if node.get("order") == "blocks" else None
    return node.get("packing", "concatenate"), block


def _mix(run: RunRecord) -> str:
    """Format the data mixes: `code 50 %, prose 50 %; from step 104 code 75 %, prose 25 %; order length`."""
    parts, node = [], dict_or_empty(run.config.get("data"))
    for first, counts in run.provenance.facts.mixes:
        total = sum(counts.values())
        shares = ", ".join(f"{name} {100 * count / total:.3g} %" for name, count in counts.items())
        parts.append(f"from step {first} {shares}" if first else shares)
    for key, default in (("packing", "concatenate"), ("order", "random")):
        if parts and node.get(key, default) != default:
            parts.append(f"{key} {node[key]}")
    return "; ".join(parts)


def _tokenizer(run: RunRecord) -> str:
    node = run.config.get("data") or {}
    return str(node.get("tokenizer", "")) if node.get("kind", "text") == "text" else ""


def _learning_rate(run: RunRecord) -> float | None:
    return number_or_none((run.config.get("optimizer") or {}).get("learning_rate"))


def _schedule(config: Mapping[str, Any]) -> str:
    schedule = config.get("schedule") or {}
    keys = [key for key in ("warmup", "cooldown", "floor") if number_or_none(schedule.get(key))]
    settings = [f"{key} {schedule[key]:g}" for key in keys]
    options, values = (dict_or_empty(schedule.get(node)) for node in ("options", "values"))
    settings += [f"{key} {value}" for key, value in options.items()]
    settings += [f"{key} by {dict_or_empty(node).get('name')}" for key, node in values.items()]
    return ", ".join([str(schedule.get("name", "")), *settings])


def _tuning(entry: Any) -> str:
    """Format a tuning entry of rule.json: `lr 0.0031 of 5 points, seed 1000003`."""
    if not isinstance(entry, Mapping):
        return "not tuned"
    rate, points, seed = (
        number_or_none(entry.get("learning_rate")),
        entry.get("points", "?"),
        entry.get("seed"),
    )
    text = f"{points} points" if rate is None else f"lr {rate:.2g} of {points} points"
    text += "" if seed is None else f", seed {seed}"
    return text + (", optimum at the edge" if entry.get("edge") else "")


def _curve(entry: Any) -> RateCurve:
    """Return the (learning rate, loss) pairs of rule.json by rising rate, without malformed ones."""
    points = dict_or_empty(entry).get("curve")
    pairs = [point for point in points if isinstance(point, list)] if isinstance(points, list) else []
    losses = {number_or_none(pair[0]): number_or_none(pair[1]) for pair in pairs if len(pair) == 2}
    return tuple(sorted((rate, loss) for rate, loss in losses.items() if rate is not None))


def _base_checkpoint(runs: Sequence[RunRecord]) -> str:
    """Format start checkpoints with * for scale and seed: `finetune_parents/*/mha/seed*@122`."""
    scale = f"/{runs[0].provenance.scale}/"
    names = (str((run.provenance.facts.base or {}).get("name", "")) for run in runs)
    patterns = {re.sub(r"/seed\d+(?=[@/])", "/seed*", name.replace(scale, "/*/", 1)) for name in names}
    return ", ".join(sorted(patterns))
