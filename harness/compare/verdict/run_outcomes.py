"""What became of every run: outcomes, what is missing, and how many diverged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.compare.inputs.expected_runs import Roster
from harness.compare.inputs.pairing import Bout
from harness.compare.inputs.run_records import Outcome, RunRecord, outcome_of
from harness.compare.results.comparison import Rule
from harness.compare.results.context_types import DivergenceCount, RunState
from harness.compare.stats.distributions import fisher_exact
from harness.compare.verdict.flags import far_above
from harness.compare.verdict.per_scale import DraftRung
from harness.records.run.status import State
from harness.records.run.training_target import END

MISSING = "missing"


def run_states(roster: Roster, scales: Sequence[str]) -> tuple[RunState, ...]:
    """Every run, and every run that should be there. `scales`: those of the runs, in order."""
    found = {run.key: _state(run, roster.rule) for run in roster.runs}
    for key in roster.expected - found.keys():
        found[key] = _missing(*key)
    order = {scale: position for position, scale in enumerate(scales)}
    last = len(order)  # a scale of which no run is there
    return tuple(found[key] for key in sorted(found, key=lambda key: (order.get(key[0], last), *key)))


def divergence_of(variant: str, drafts: Sequence[DraftRung]) -> DivergenceCount:
    """Diverged runs of a treatment and of the control, all scales together, with Fisher's exact test."""
    lost = diverged_paths(drafts)
    a_runs, b_runs = ended_runs(drafts)
    a, b = sum(run.path in lost for run in a_runs), sum(run.path in lost for run in b_runs)
    p = fisher_exact(b, len(b_runs), a, len(a_runs)) if a_runs and b_runs else None
    return DivergenceCount(variant, b, len(b_runs), a, len(a_runs), p)


def ended_runs(drafts: Sequence[DraftRung]) -> tuple[list[RunRecord], list[RunRecord]]:
    """Runs of the control and of the treatment that came to an end: at their last step, at the look that
    ended their scale, or because they diverged."""
    a = [run for draft in drafts for run in draft.bout.a_runs if _ended(run, draft.bout)]
    b = [run for draft in drafts for run in draft.bout.b_runs if _ended(run, draft.bout)]
    return a, b


def diverged_paths(drafts: Sequence[DraftRung]) -> set[str]:
    """Runs of both that diverged: by their own word, or far above all others."""
    found = set()
    for draft in drafts:
        bout = draft.bout
        found |= {run.path for run in (*bout.a_runs, *bout.b_runs) if run.diverged}
        found |= far_above(bout, draft.context.noise.get(bout.scale))
    return found


def _ended(run: RunRecord, bout: Bout) -> bool:
    return run.complete or run.diverged or (bout.look != END and run.status.state is State.stopped)


def _state(run: RunRecord, rule: Rule) -> RunState:
    outcome = _outcome(run, rule)
    loss = outcome.loss if outcome and np.isfinite(outcome.loss) else None
    record, status = run.provenance, run.status
    return RunState(
        record.scale, record.variant, record.seed, status.state.value, status.step, status.steps, loss,
        _problem(run, rule, loss), run.path, record.facts.loss_unit,
    )  # fmt: skip


def _outcome(run: RunRecord, rule: Rule) -> Outcome | None:
    """What a run scored at its end; where it was stopped at a look, at the end of that look's branch."""
    if rule.by_looks and run.status.state is State.stopped and run.branches:
        return outcome_of(run.branches[max(run.branches)], rule.domains)
    return outcome_of(run.evals, rule.domains) if run.complete else None


def _problem(run: RunRecord, rule: Rule, loss: float | None) -> str:
    """One sentence where the run cannot be used as it is."""
    if run.problem:
        return run.problem
    if run.edited:
        return "config.yaml, run.json and the path of this run contradict each other"
    if run.diverged:
        return run.status.message or "the loss is not finite at the end"
    if run.status.state is State.finished and run.evals.empty:
        return "finished, but without any evaluation"
    if run.status.state is State.finished and loss is None:
        return f"finished, but not evaluated on all of: {', '.join(rule.domains)}"
    by_rule = rule.by_looks and run.status.state is State.stopped
    return "" if by_rule or run.status.state is State.finished else run.status.message


def _missing(scale: str, variant: str, seed: int) -> RunState:
    path = f"{scale}/{variant}/seed{seed}"
    return RunState(
        scale, variant, seed, MISSING, 0, 0, None, "never launched, though its siblings were", path
    )
