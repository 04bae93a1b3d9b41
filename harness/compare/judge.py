"""Verdict of a sweep: reads its runs, judges every rung, then every ladder."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness.compare.context.fairness import fairness_rows
from harness.compare.context.own_metrics import own_metric_rows
from harness.compare.context.secondary_results import (
    expert_uses,
    forgetting_rows,
    sample_rows,
    untrained_domains,
)
from harness.compare.inputs.decision_rule import RULE_DAMAGE, gate_margins, read_rule
from harness.compare.inputs.expected_runs import ExpectedRuns, RunKey, runs_in_ledger
from harness.compare.inputs.matched_amounts import match_note
from harness.compare.inputs.noise_floor import (
    damaged_libraries,
    false_positive_rate,
    floor_key,
    library_note,
    matching_floors,
    same_seed_note,
)
from harness.compare.inputs.pairing import PairedRuns, paired_runs, sort_scales
from harness.compare.inputs.run_records import RunRecord, read_runs
from harness.compare.inputs.step_timing import read_step_timing
from harness.compare.results.comparison import INPUT_SHARE, STEP_SECONDS, Comparison, Deviation, Rule
from harness.compare.results.to_json import to_json
from harness.compare.results.verdict_types import GateResult, Ladder, Rung
from harness.compare.stats.control_slope import ControlSlope
from harness.compare.stats.multiple_testing import holm
from harness.compare.stats.observed_power import ObservedPower, observe_power
from harness.compare.stats.paired_effects import NoiseFloor
from harness.compare.verdict.iso_compute import WALL_CLOCK, iso_rows
from harness.compare.verdict.largest_scale import (
    CorrectedTest,
    correct_over_treatments,
    largest_draft,
    use_block_variance,
)
from harness.compare.verdict.over_scales import judge_ladders
from harness.compare.verdict.per_scale import DraftRung, draft_rungs, finish_rung
from harness.compare.verdict.promotion_gate import evaluate_gate, gate_measurements
from harness.compare.verdict.run_outcomes import count_divergence, run_states
from harness.compare.verdict.verdict_text import NOTHING, verdict_text
from harness.records.paths import SweepDir
from harness.records.sweep.timing import read_timing

DAMAGED_TIMING = (
    "DAMAGED: timing.json does not match its checksum or the ledger, so the gate has no step times and no "
    "memory. Repeat the sweep command, which times again."
)


@dataclass(frozen=True)
class VerdictInputs:
    """Inputs of a verdict, read from a sweep or from tables."""

    experiment: str
    rule: Rule
    runs: Sequence[RunRecord]
    deviations: Sequence[Deviation] = ()
    floors: dict[str, NoiseFloor] = field(default_factory=dict)
    tuning: dict[str, Any] = field(default_factory=dict)
    gate: dict[str, float] | None = None
    """Margins of the gate by criterion; None if the experiment has no gate."""
    timing: dict[str, Any] = field(default_factory=dict)
    """Result of the timing pass: scale, and step time and peak memory by variant."""
    notes: Sequence[str] = ()
    ledger_runs: frozenset[RunKey] = frozenset()
    """Runs with a placement in the ledger."""
    floor_notes: Mapping[str, str] = field(default_factory=dict)
    """Sentence by scale that names the library of its noise floor."""
    known_slopes: Mapping[str, ControlSlope] = field(default_factory=dict)
    """Slopes of the control by scale that were given, or come from runs of another length."""


def compare(sweep: SweepDir | Path | str) -> Comparison:
    """Return the verdict of a sweep directory, finished or not.

    Damaged or missing runs become flags, problems and missing entries. Raises FileNotFoundError only if the
    directory does not exist.
    """
    started = time.perf_counter()
    directory = sweep if isinstance(sweep, SweepDir) else SweepDir(Path(sweep))
    if not directory.path.is_dir():
        raise FileNotFoundError(f"{directory.path}: no sweep directory. Check the path.")
    comparison = judge(read_inputs(directory))
    comparison.times["compare_seconds"] = time.perf_counter() - started
    return comparison


def read_inputs(sweep: SweepDir) -> VerdictInputs:
    """Read everything that a verdict needs from a sweep."""
    runs = read_runs(sweep)
    rule, deviations, tuning = read_rule(sweep, runs)
    records = [run.provenance for run in runs]
    controls = [floor_key(record) for record in records if record.variant == rule.control]
    floors, timing = matching_floors(sweep, controls), read_timing(sweep)
    notes = [*_notes(runs, rule), *damaged_libraries(sweep)]
    notes += [DAMAGED_TIMING] * (timing is None and os.path.lexists(sweep.timing))
    name = min((record.experiment for record in records if record.experiment), default=sweep.path.name)
    return VerdictInputs(
        name, rule, runs, deviations, floors, tuning, gate_margins(sweep), timing or {}, notes,
        runs_in_ledger(sweep), {scale: library_note(sweep, controls, scale) for scale in floors},
    )  # fmt: skip


def _notes(runs: Sequence[RunRecord], rule: Rule) -> list[str]:
    """Return the results of the A/A checks, and a warning if untrained domains count in the mean loss."""
    controls = [run for run in runs if run.provenance.variant == rule.control]
    rate = false_positive_rate(controls, rule.domains, rule.alpha)
    notes = [same_seed_note(runs), rate.sentence if rate else ""]
    domains = ", ".join(untrained_domains([run for run in runs if run.provenance.facts.base]))
    if domains and not rule.domains:
        notes += [f"rule.domains is empty: the mean over all domains decides, including untrained {domains}."]
    return [*filter(None, notes)]


def judge(inputs: VerdictInputs) -> Comparison:
    """Compute the verdict: every rung with Holm's correction, then each treatment's two answers."""
    rule, runs = inputs.rule, inputs.runs
    expected = ExpectedRuns(rule, runs, inputs.ledger_runs)
    scales, treatments, family_size = sort_scales(runs), expected.treatments, expected.family_size
    damaged = any(deviation.kind in RULE_DAMAGE for deviation in inputs.deviations)
    timing = read_step_timing(inputs.timing, rule.control)
    pairings = {
        name: [paired_runs(runs, scale, rule, name) for scale in expected.compared_scales(name, scales)]
        for name in treatments
    }
    drafts = use_block_variance(
        {
            name: draft_rungs(
                rule, pairs, inputs.floors, inputs.tuning, family_size, damaged, timing, inputs.known_slopes
            )
            for name, pairs in pairings.items()
        }
    )
    tests = correct_over_treatments(drafts, rule)
    rungs = _finish_rungs(drafts, tests, family_size)
    ladders, step_seconds = judge_ladders(rule, drafts, rungs), dict(timing.step_seconds)
    return Comparison(
        experiment=inputs.experiment,
        verdict=verdict_text(ladders) if treatments else " ".join(inputs.notes) or NOTHING,
        rule=rule,
        fairness=fairness_rows(runs, scales, rule.control, inputs.tuning),
        rungs=tuple(rung for name in treatments for rung in rungs[name]),
        ladder=ladders,
        gate=_judge_gates(inputs, ladders, drafts),
        deviations=tuple(inputs.deviations),
        runs=run_states(expected, scales),
        divergence=tuple(count_divergence(name, drafts[name]) for name in treatments),
        forgetting=forgetting_rows(runs, scales, rule.control),
        notes=(
            *inputs.notes,
            *filter(None, [match_note(rule.match)]),
            *_record_notes(inputs, drafts),
            *expected.not_compared_notes,
        ),
        loss_unit=expected.loss_unit,
        samples=sample_rows(runs, scales, rule.control),
        times=_times(pairings, runs) | ({STEP_SECONDS: step_seconds} if step_seconds else {}),
        experts=expert_uses(runs, scales),
        metrics=own_metric_rows(runs, scales, rule.control),
        power=_observed_power(pairings, inputs),
    )


def _observed_power(
    pairings: Mapping[str, Sequence[PairedRuns]], inputs: VerdictInputs
) -> tuple[ObservedPower, ...]:
    """Compare the noise of the pairs with the noise that the design counted on, smallest scale first. Empty
    for logs, which no design announced."""
    if not inputs.rule.hash:
        return ()
    deltas: dict[str, list[np.ndarray]] = {}
    for pairing in (pairing for group in pairings.values() for pairing in group if pairing.paired):
        deltas.setdefault(pairing.scale, []).append(pairing.loss_differences)
    in_order = {scale: deltas[scale] for scale in sort_scales(inputs.runs) if scale in deltas}
    rule = inputs.rule
    return observe_power(in_order, treatments=len(pairings), floors=inputs.floors, alpha=rule.alpha)


def _record_notes(inputs: VerdictInputs, drafts: dict[str, list[DraftRung]]) -> list[str]:
    """Name the A/A libraries that a verdict uses, and the damaged records of runs."""
    used = {scale for group in drafts.values() for draft in group for scale in draft.context.floors}
    damaged = [
        f"DAMAGED: {run.path}: {run.problem}. Repeat the sweep command, which trains that part again."
        for run in inputs.runs
        if run.problem
    ]
    return damaged + [inputs.floor_notes[scale] for scale in sorted(used & inputs.floor_notes.keys())]


def _finish_rungs(
    drafts: Mapping[str, Sequence[DraftRung]], tests: Mapping[str, CorrectedTest], family_size: int
) -> dict[str, list[Rung]]:
    """Decide every rung: the largest scale by its own test, the smaller ones corrected over all rungs."""
    p_holm = iter(holm([draft.p for group in drafts.values() for draft in group], family_size))
    rungs: dict[str, list[Rung]] = {}
    for name, group in drafts.items():
        largest = largest_draft(group)
        corrected = [(draft, next(p_holm)) for draft in group]
        rungs[name] = [
            finish_rung(draft, tests[name].p_holm if draft is largest else p) for draft, p in corrected
        ]
    return rungs


def _judge_gates(
    inputs: VerdictInputs, ladders: Sequence[Ladder], drafts: dict[str, list[DraftRung]]
) -> tuple[GateResult, ...] | None:
    """Judge the gate of every treatment except the positive control. Only this reads the step tables."""
    if inputs.gate is None:
        return None
    spikes: dict[str, bool | None] = {}
    return tuple(
        evaluate_gate(ladder, *gate_measurements(drafts[ladder.variant], inputs.timing, spikes), inputs.gate)
        for ladder in ladders
        if not ladder.positive_control
    )


def _times(pairings: dict[str, list[PairedRuns]], runs: Sequence[RunRecord]) -> dict[str, Any]:
    """Collect wall-clock facts: pairs at equal device-seconds, and the input share of each run."""
    rows = {
        name: {pairs.scale: to_json(row) for pairs in group for row in iso_rows(pairs, (WALL_CLOCK,))}
        for name, group in pairings.items()
    }
    input_shares = {run.path: share for run in runs if isinstance(share := run.status.input_share, float)}
    return {"iso_device_seconds": rows, INPUT_SHARE: input_shares}
