"""What became of every run: outcomes, what is missing, and how many diverged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.compare.distributions import fisher_exact
from harness.compare.flags import far_above
from harness.compare.reading import RunRecord, outcome_of
from harness.compare.results import DivergenceCount, Rule, RunState
from harness.compare.rungs import DraftRung
from harness.records.status import State

MISSING = "missing"


def run_states(runs: Sequence[RunRecord], scales: Sequence[str], rule: Rule) -> tuple[RunState, ...]:
    """Every run, and every run that its siblings say should be there: each variant at each scale and
    seed that some variant has."""
    found = {run.key: _state(run, rule) for run in runs}
    variants = sorted({run.provenance.variant for run in runs})
    blocks = {(run.provenance.scale, run.provenance.seed) for run in runs}
    for scale, seed in blocks:
        for variant in variants:
            found.setdefault((scale, variant, seed), _missing(scale, variant, seed))
    order = {scale: position for position, scale in enumerate(scales)}
    return tuple(found[key] for key in sorted(found, key=lambda key: (order[key[0]], key[1], key[2])))


def divergence_of(variant: str, drafts: Sequence[DraftRung]) -> DivergenceCount:
    """Diverged runs of a treatment and of the control, all scales together, with Fisher's exact test."""
    a, b = set(), set()
    a_runs = [run for draft in drafts for run in draft.bout.a_runs if run.complete or run.diverged]
    b_runs = [run for draft in drafts for run in draft.bout.b_runs if run.complete or run.diverged]
    for draft in drafts:
        far = far_above(draft.bout, draft.context.noise.get(draft.bout.scale))
        a |= {run.path for run in draft.bout.a_runs if run.diverged or run.path in far}
        b |= {run.path for run in draft.bout.b_runs if run.diverged or run.path in far}
    p = fisher_exact(len(b), len(b_runs), len(a), len(a_runs)) if a_runs and b_runs else None
    return DivergenceCount(variant, len(b), len(b_runs), len(a), len(a_runs), p)


def _state(run: RunRecord, rule: Rule) -> RunState:
    outcome = outcome_of(run.evals, rule.domains) if run.complete else None
    loss = outcome.loss if outcome and np.isfinite(outcome.loss) else None
    record, status = run.provenance, run.status
    return RunState(
        record.scale, record.variant, record.seed, status.state.value, status.step, status.steps, loss,
        _problem(run, rule, loss), run.path,
    )  # fmt: skip


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
    return "" if run.status.state is State.finished else run.status.message


def _missing(scale: str, variant: str, seed: int) -> RunState:
    path = f"{scale}/{variant}/seed{seed}"
    return RunState(
        scale, variant, seed, MISSING, 0, 0, None, "never launched, though its siblings were", path
    )
