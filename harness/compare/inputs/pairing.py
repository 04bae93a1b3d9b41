"""Pairing of control and treatment runs at one scale by seed, with the losses that are compared."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.compare.inputs.evaluations import EvalResult, last_result
from harness.compare.inputs.run_records import RunRecord
from harness.compare.inputs.run_terms import data_differ, declares_examples
from harness.compare.results.comparison import Rule
from harness.config.schema.decision import Axis
from harness.records.run.status import State
from harness.records.run.stream_hash import parse_stream
from harness.records.run.training_target import END


@dataclass(frozen=True)
class RunPair:
    """Control and treatment run of one seed, with their results at a look."""

    control: RunRecord
    treatment: RunRecord
    control_result: EvalResult
    treatment_result: EvalResult
    look: float = END
    match: Axis = Axis.tokens
    """Resource of which both runs get equal amounts."""
    uses_looks: bool = False
    """True if an interim look may stop the scale."""

    @property
    def seed(self) -> int:
        """Parameter seed of both runs."""
        return self.control.provenance.seed


JudgedResult = tuple[RunRecord, EvalResult]
"""A run and its result at the look."""


@dataclass(frozen=True)
class PairedRuns:
    """Runs of one treatment and of the control at one scale."""

    scale: str
    control: str
    variant: str
    domains: tuple[str, ...]
    control_runs: tuple[RunRecord, ...]
    treatment_runs: tuple[RunRecord, ...]
    look: float = END
    match: Axis = Axis.tokens
    """Resource of which the two runs of a pair get equal amounts."""
    uses_looks: bool = False
    """True if an interim look may stop the scale."""

    @cached_property
    def pairs(self) -> tuple[RunPair, ...]:
        """Pairs of equal seed in which both results are finite, at `look`."""
        return self.pairs_at(self.look)

    def pairs_at(self, look: float) -> tuple[RunPair, ...]:
        """Return the pairs of equal seed in which both results at `look` are finite."""
        pairs = [(a, b, self.result_at(a, look), self.result_at(b, look)) for a, b in self.candidate_pairs]
        rule = look, self.match, self.uses_looks
        return tuple(RunPair(run, sibling, a, b, *rule) for run, sibling, a, b in pairs if a and b)

    def result_at(self, run: RunRecord, look: float | None = None) -> EvalResult | None:
        """Return the run's result at a look (default: `self.look`); None if missing or not finite."""
        look = self.look if look is None else look
        evals = run.branches.get(look) if look != END else run.evals if run.complete else None
        result = last_result(evals, self.domains) if evals else None
        return result if result and np.isfinite(result.loss) else None

    @cached_property
    def paired(self) -> bool:
        """True if pairs share their data: no undeclared difference of examples, and two or more pairs (or too
        few runs for an unpaired test)."""
        fewest_runs = min(self.all_control_losses.size, self.all_treatment_losses.size)
        enough = len(self.pairs) >= 2 or fewest_runs < 2
        return enough and not any(reads_other_examples(pair) for pair in self.pairs)

    @cached_property
    def judged_results(self) -> tuple[list[JudgedResult], list[JudgedResult]]:
        """Run and result of control and treatment that enter the difference: the pairs if they are paired,
        otherwise one run per seed of each."""
        if self.paired:
            controls = [(pair.control, pair.control_result) for pair in self.pairs]
            return controls, [(pair.treatment, pair.treatment_result) for pair in self.pairs]
        arms = (one_run_per_seed(runs).values() for runs in (self.control_runs, self.treatment_runs))
        controls, treatments = (
            [(run, result) for run in runs if (result := self.result_at(run)) is not None] for runs in arms
        )
        return controls, treatments

    @cached_property
    def control_losses(self) -> np.ndarray:
        """Control loss of each pair, shape (pairs,)."""
        return np.array([m.control_result.loss for m in self.pairs])

    @cached_property
    def treatment_losses(self) -> np.ndarray:
        """Treatment loss of each pair, shape (pairs,)."""
        return np.array([m.treatment_result.loss for m in self.pairs])

    @property
    def loss_differences(self) -> np.ndarray:
        """Treatment loss minus control loss of each pair, shape (pairs,)."""
        return self.treatment_losses - self.control_losses

    @cached_property
    def all_control_losses(self) -> np.ndarray:
        """Finite losses of the control, paired or not, shape (control seeds,)."""
        return self._finite_losses(self.control_runs)

    @cached_property
    def all_treatment_losses(self) -> np.ndarray:
        """Finite losses of the treatment, paired or not, shape (treatment seeds,)."""
        return self._finite_losses(self.treatment_runs)

    def _finite_losses(self, runs: Sequence[RunRecord]) -> np.ndarray:
        results = map(self.result_at, one_run_per_seed(runs).values())
        return np.array([result.loss for result in results if result])

    @property
    def common_branches(self) -> list[float]:
        """Token shares of the branches that both runs of some pair have, rising."""
        return sorted({s for a, b in self.candidate_pairs for s in a.branches.keys() & b.branches.keys()})

    @cached_property
    def candidate_pairs(self) -> list[tuple[RunRecord, RunRecord]]:
        """Control and treatment runs of equal seed, in any state; a copied directory counts once."""
        a_by_seed, b_by_seed = one_run_per_seed(self.control_runs), one_run_per_seed(self.treatment_runs)
        return [(a_by_seed[seed], b_by_seed[seed]) for seed in a_by_seed if seed in b_by_seed]


def one_run_per_seed(runs: Sequence[RunRecord]) -> dict[int, RunRecord]:
    """Return one run per seed. Of several with one seed, prefer a run that was not edited by hand."""
    run_by_seed: dict[int, RunRecord] = {}
    for run in sorted(runs, key=lambda run: run.edited_by_hand):
        run_by_seed.setdefault(run.provenance.seed, run)
    return dict(sorted(run_by_seed.items()))


def group_by_variant(runs: Sequence[RunRecord], scale: str, control: str) -> dict[str, list[RunRecord]]:
    """Group the runs of one scale by variant: the control first, the others by name."""
    groups: dict[str, list[RunRecord]] = defaultdict(list)
    for run in runs:
        if run.provenance.scale == scale:
            groups[run.provenance.variant].append(run)
    return {name: groups[name] for name in sorted(groups, key=lambda name: (name != control, name))}


def reads_other_examples(pair: RunPair) -> bool:
    """Return True if two runs read different examples, and `variant.touches` of neither names the data."""
    a, b = pair.control.terms, pair.treatment.terms
    return data_differ(a, b) or (not declares_examples(a, b) and reads_same_stream(pair) is False)


def reads_same_stream(pair: RunPair) -> bool | None:
    """Return True if the hashes of the examples prove that two runs read the same ones in the same order, as
    far as both read; None if a record of them is missing. Runs of equal batches and steps are held to the
    hash of their batches, others to that of the stream."""
    control, treatment = pair.control, pair.treatment
    a, b = control.examples_until(pair.look), treatment.examples_until(pair.look)
    if a is None or b is None:
        return None
    same_batch = control.provenance.facts.tokens_per_step == treatment.provenance.facts.tokens_per_step
    if same_batch and a["steps"] == b["steps"]:
        return a["hash"] == b["hash"]
    stream, other_stream = parse_stream(a.get("stream")), parse_stream(b.get("stream"))
    return stream.agrees_with(other_stream) if stream and other_stream else None


def paired_runs_at_end(runs: Sequence[RunRecord], scale: str, rule: Rule, variant: str) -> PairedRuns:
    """Pair the runs of one scale at their end."""
    control_runs, treatment_runs = (
        tuple(run for run in runs if (run.provenance.scale, run.provenance.variant) == (scale, name))
        for name in (rule.control, variant)
    )
    return PairedRuns(
        scale, rule.control, variant, rule.domains, control_runs, treatment_runs,
        match=rule.match, uses_looks=rule.uses_looks,
    )  # fmt: skip


def paired_runs(runs: Sequence[RunRecord], scale: str, rule: Rule, variant: str) -> PairedRuns:
    """Pair runs at their end; if runs were stopped early, at their last common look."""
    at_end = paired_runs_at_end(runs, scale, rule, variant)
    stopped = any(run.status.state is State.stopped for run in (*at_end.control_runs, *at_end.treatment_runs))
    if at_end.pairs or not stopped or not at_end.common_branches:
        return at_end
    return dataclasses.replace(at_end, look=at_end.common_branches[-1])


def sort_scales(runs: Sequence[RunRecord]) -> list[str]:
    """Sort scales by the model FLOPs of a run; if these are unknown, by its tokens."""
    size: dict[str, tuple[float, int]] = {}
    for run in runs:
        record = run.provenance
        cost = (record.facts.flops_per_token * record.tokens, record.tokens)
        size[record.scale] = max(size.get(record.scale, (0.0, 0)), cost)
    return sorted(size, key=lambda scale: (size[scale], scale))
