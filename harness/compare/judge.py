"""A sweep in, a verdict out: reads the runs, judges each rung, then the ladder, and says so."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.compare.context.expert_load import expert_uses
from harness.compare.context.fairness import fairness_rows
from harness.compare.context.forgetting import forgetting_rows, untrained
from harness.compare.context.sample_quality import sample_rows
from harness.compare.inputs.decision_rule import content_of, gate_margins, read_rule
from harness.compare.inputs.expected_runs import Key, Roster, placed_runs
from harness.compare.inputs.noise_floor import find_floors, is_null, null_rate, twin_sentence
from harness.compare.inputs.pairing import Bout, bout_of, ordered_scales
from harness.compare.inputs.run_records import RunRecord, read_runs
from harness.compare.results.comparison import INPUT, Comparison, Deviation, Rule
from harness.compare.results.to_json import to_json
from harness.compare.results.verdict_types import GateResult, Ladder, Rung
from harness.compare.stats.multiple_testing import holm, holm_levels
from harness.compare.stats.paired_effects import NoiseFloor
from harness.compare.verdict.control_slopes import control_slopes
from harness.compare.verdict.decide import sentence
from harness.compare.verdict.iso_compute import WALL_CLOCK, iso_rows
from harness.compare.verdict.over_scales import Adjusted, judge_ladder, pooled_of, pooled_p
from harness.compare.verdict.per_scale import DraftRung, context_of, draft_rung, finish_rung
from harness.compare.verdict.promotion_gate import gate_of, measure
from harness.compare.verdict.run_outcomes import divergence_of, run_states
from harness.records.paths import SweepDir


@dataclass(frozen=True)
class Evidence:
    """All that a verdict is made of, wherever it was read from."""

    experiment: str
    rule: Rule
    runs: Sequence[RunRecord]
    deviations: Sequence[Deviation] = ()
    floors: dict[str, NoiseFloor] = field(default_factory=dict)
    tuning: dict[str, Any] = field(default_factory=dict)
    gate: dict[str, float] | None = None
    """Margins of the gate by criterion; None where the experiment asks for no gate."""
    timing: dict[str, Any] = field(default_factory=dict)
    """What a timing pass of its own measured: scale, and by variant step time and peak memory."""
    notes: Sequence[str] = ()
    placed: frozenset[Key] = frozenset()
    """Runs that the ledger has a place for."""

    @property
    def roster(self) -> Roster:
        return Roster(self.rule, self.runs, self.placed)


def compare(sweep: SweepDir | Path | str) -> Comparison:
    """The verdict of a sweep directory, finished or not.

    Odd, damaged or missing runs become flags, problems and missing entries; nothing raises but a
    directory that is not there (FileNotFoundError).
    """
    started = time.perf_counter()
    directory = sweep if isinstance(sweep, SweepDir) else SweepDir(Path(sweep))
    if not directory.path.is_dir():
        raise FileNotFoundError(f"{directory.path}: there is no sweep directory of this name")
    comparison = judge(gather(directory))
    comparison.times["compare_seconds"] = time.perf_counter() - started
    return comparison


def gather(sweep: SweepDir) -> Evidence:
    """Read everything of a sweep that a verdict needs."""
    runs = read_runs(sweep)
    rule, deviations, tuning = read_rule(sweep, runs)
    controls = [run for run in runs if run.provenance.variant == rule.control]
    names = {run.provenance.experiment for run in runs if run.provenance.experiment}
    experiment = sorted(names)[0] if names else sweep.path.name
    gate = gate_margins(sweep), content_of(sweep.timing)
    floors, placed = find_floors(sweep, controls), placed_runs(sweep)
    return Evidence(experiment, rule, runs, deviations, floors, tuning, *gate, _notes(runs, rule), placed)


def _notes(runs: Sequence[RunRecord], rule: Rule) -> list[str]:
    """A/A checks: same-seed twins are bitwise equal, and null pairs differ no more often than they may. And
    what a verdict over all domains is made of where some are there to see what is forgotten."""
    controls = [run for run in runs if run.provenance.variant == rule.control]
    rate = null_rate(controls, rule.domains, rule.alpha) if is_null(controls) else None
    said = [twin_sentence(runs), rate.sentence if rate else "", _domains_sentence(runs, rule)]
    return [*filter(None, said)]


def _domains_sentence(runs: Sequence[RunRecord], rule: Rule) -> str:
    old = untrained([run for run in runs if run.provenance.facts.base])
    if rule.domains or not old:
        return ""
    return (
        f"rule.domains is empty, so the mean over all domains decides: {', '.join(old)} too, which the runs "
        "do not train on."
    )


def judge(evidence: Evidence) -> Comparison:
    """The verdict over evidence: rungs first, Holm over all of them, then each treatment's ladder."""
    rule, runs, roster = evidence.rule, evidence.runs, evidence.roster
    scales, treatments = ordered_scales(runs), roster.treatments
    bouts = {
        name: [bout_of(runs, s, rule.control, name, rule.domains) for s in roster.scales_of(name, scales)]
        for name in treatments
    }
    drafts = {name: _drafts(evidence, own, roster.family) for name, own in bouts.items()}
    rungs = _rungs(drafts, roster.family)
    ladders = _ladders(rule, drafts, rungs)
    divergence = tuple(divergence_of(name, drafts[name]) for name in treatments)
    return Comparison(
        experiment=evidence.experiment,
        verdict=sentence(ladders) if treatments else " ".join(evidence.notes) or sentence(()),
        rule=rule,
        fairness=fairness_rows(runs, scales, rule.control, evidence.tuning),
        rungs=tuple(rung for name in treatments for rung in rungs[name]),
        ladder=ladders,
        gate=_gates(evidence, ladders, drafts),
        deviations=tuple(evidence.deviations),
        runs=run_states(roster, scales),
        divergence=divergence,
        forgetting=forgetting_rows(runs, scales, rule.control),
        notes=(*evidence.notes, *_alone_sentence(roster)),
        loss_unit=roster.unit,
        samples=sample_rows(runs, scales, rule.control),
        times=_times(bouts, runs),
        experts=expert_uses(runs, scales),
    )


def _alone_sentence(roster: Roster) -> list[str]:
    named = dict.fromkeys(f"{run.provenance.variant} at {run.provenance.scale}" for run in roster.alone)
    if not named:
        return []
    return [f"Nothing is decided by what has no sibling in {roster.unit}: {', '.join(named)}."]


def _drafts(evidence: Evidence, bouts: list[Bout], family: int) -> list[DraftRung]:
    """Every rung of one treatment, before Holm's adjustment over all of them."""
    slopes = control_slopes(bouts)
    context = context_of(evidence.rule, bouts, evidence.floors, slopes, evidence.tuning, family)
    return [draft_rung(bout, context) for bout in bouts]


def _rungs(drafts: dict[str, list[DraftRung]], family: int) -> dict[str, list[Rung]]:
    """Holm over every treatment and scale at once."""
    p = [draft.p for own in drafts.values() for draft in own]
    adjusted = iter(holm(p, family))
    return {name: [finish_rung(draft, next(adjusted)) for draft in own] for name, own in drafts.items()}


def _ladders(
    rule: Rule, drafts: dict[str, list[DraftRung]], rungs: dict[str, list[Rung]]
) -> tuple[Ladder, ...]:
    """Pooled over scales, with Holm over the treatments."""
    pooled = {name: pooled_of(own) for name, own in drafts.items()}
    p = [pooled_p(k, drafts[name]) for name, k in pooled.items()]
    p_holm, levels = holm(p, len(rule.family)), holm_levels(p, rule.alpha, len(rule.family))
    return tuple(
        judge_ladder(rule, drafts[name], rungs[name], pooled[name], Adjusted(one, corrected, level))
        for name, one, corrected, level in zip(drafts, p, p_holm, levels, strict=True)
    )


def _gates(
    evidence: Evidence, ladders: Sequence[Ladder], drafts: dict[str, list[DraftRung]]
) -> tuple[GateResult, ...] | None:
    """One gate a treatment, but for the positive control, which nobody promotes. Step tables are read for
    this alone."""
    if evidence.gate is None:
        return None
    spikes: dict[str, bool | None] = {}
    return tuple(
        gate_of(ladder, *measure(drafts[ladder.variant], evidence.timing, spikes), evidence.gate)
        for ladder in ladders
        if not ladder.positive_control
    )


def _times(bouts: dict[str, list[Bout]], runs: Sequence[RunRecord]) -> dict[str, Any]:
    """Wall-clock facts: the pairs at equal device-seconds, and what each run waited for its input."""
    rows = {
        name: {bout.scale: to_json(row) for bout in own for row in iso_rows(bout, (WALL_CLOCK,))}
        for name, own in bouts.items()
    }
    waited = {run.path: share for run in runs if isinstance(share := run.status.input_share, float)}
    return {"iso_device_seconds": rows, INPUT: waited}
