"""Final state of every run: outcomes, missing runs, and counts of divergence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.compare.inputs.evaluations import EvalResult, last_result
from harness.compare.inputs.expected_runs import ExpectedRuns
from harness.compare.inputs.pairing import PairedRuns
from harness.compare.inputs.run_records import RunRecord
from harness.compare.results.comparison import Rule
from harness.compare.results.context_types import DivergenceCount, RunState
from harness.compare.stats.distributions import fisher_exact
from harness.compare.verdict.flags import paths_far_above
from harness.compare.verdict.per_scale import DraftRung
from harness.records.run.status import State
from harness.records.run.training_target import END

MISSING = "missing"


def run_states(expected_runs: ExpectedRuns, scales: Sequence[str]) -> tuple[RunState, ...]:
    """Return the state of every run that exists or is expected. scales: scales of the runs, in order."""
    states = {run.key: _run_state(run, expected_runs.rule) for run in expected_runs.runs}
    reason = "never launched, though its siblings were"
    for key in expected_runs.expected - states.keys():
        scale, variant, seed = key
        states[key] = RunState(*key, MISSING, 0, 0, None, reason, f"{scale}/{variant}/seed{seed}")
    order = {scale: position for position, scale in enumerate(scales)}
    last = len(order)  # Scales without any run come last.
    return tuple(states[key] for key in sorted(states, key=lambda key: (order.get(key[0], last), *key)))


def count_divergence(variant: str, drafts: Sequence[DraftRung]) -> DivergenceCount:
    """Count the diverged runs of a treatment and of the control over all scales, with Fisher's exact p."""
    diverged = diverged_paths(drafts)
    a_runs, b_runs = ended_runs(drafts)
    a, b = sum(run.path in diverged for run in a_runs), sum(run.path in diverged for run in b_runs)
    p = fisher_exact(b, len(b_runs), a, len(a_runs)) if a_runs and b_runs else None
    return DivergenceCount(variant, b, len(b_runs), a, len(a_runs), p)


def ended_runs(drafts: Sequence[DraftRung]) -> tuple[list[RunRecord], list[RunRecord]]:
    """Return the runs of control and treatment that ended: at their last step, at the look that ended their
    scale, or by divergence."""
    a = [run for draft in drafts for run in draft.pairing.control_runs if _has_ended(run, draft.pairing)]
    b = [run for draft in drafts for run in draft.pairing.treatment_runs if _has_ended(run, draft.pairing)]
    return a, b


def diverged_paths(drafts: Sequence[DraftRung]) -> set[str]:
    """Return the paths of runs of both variants that diverged, by their status or with a loss far above."""
    paths = set()
    for draft in drafts:
        pairing = draft.pairing
        paths |= {run.path for run in (*pairing.control_runs, *pairing.treatment_runs) if run.diverged}
        paths |= paths_far_above(pairing, draft.context.noise_sd.get(pairing.scale))
    return paths


def _has_ended(run: RunRecord, pairing: PairedRuns) -> bool:
    return run.complete or run.diverged or (pairing.look != END and run.status.state is State.stopped)


def _run_state(run: RunRecord, rule: Rule) -> RunState:
    outcome = _final_outcome(run, rule)
    loss = outcome.loss if outcome and np.isfinite(outcome.loss) else None
    record, status = run.provenance, run.status
    return RunState(
        record.scale, record.variant, record.seed, status.state.value, status.step, status.steps, loss,
        _problem(run, rule, loss), run.path, record.facts.loss_unit,
    )  # fmt: skip


def _final_outcome(run: RunRecord, rule: Rule) -> EvalResult | None:
    """Return the outcome at a run's end, or at the end of its last branch if it was stopped at a look."""
    if rule.uses_looks and run.status.state is State.stopped and run.branches:
        return last_result(run.branches[max(run.branches)], rule.domains)
    return last_result(run.evals, rule.domains) if run.complete else None


def _problem(run: RunRecord, rule: Rule, loss: float | None) -> str:
    """Return one sentence if the run cannot be used as it is, else ""."""
    if run.problem:
        return run.problem
    if run.edited_by_hand:
        return "config.yaml, run.json and the path of this run contradict each other"
    if run.diverged:
        return run.status.message or "the loss is not finite at the end"
    if run.status.state is State.finished and run.evals.empty:
        return "finished, but without any evaluation"
    if run.status.state is State.finished and loss is None:
        return f"finished, but not evaluated on all of: {', '.join(rule.domains)}"
    by_rule = rule.uses_looks and run.status.state is State.stopped
    return "" if by_rule or run.status.state is State.finished else run.status.message
