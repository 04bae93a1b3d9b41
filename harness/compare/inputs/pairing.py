"""Who is compared with whom: the runs of one scale, matched by seed, and the losses they are judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.compare.inputs.run_records import Outcome, RunRecord, outcome_of
from harness.records.run.status import State
from harness.records.run.training_target import END


@dataclass(frozen=True)
class Match:
    """Two runs of a block and their outcomes at the look that is judged."""

    control: RunRecord
    treatment: RunRecord
    a: Outcome
    b: Outcome
    look: float = END

    @property
    def seed(self) -> int:
        return self.control.provenance.seed


@dataclass(frozen=True)
class Bout:
    """One treatment against the control at one scale."""

    scale: str
    control: str
    variant: str
    domains: tuple[str, ...]
    a_runs: tuple[RunRecord, ...]
    b_runs: tuple[RunRecord, ...]
    look: float = END

    @cached_property
    def matches(self) -> tuple[Match, ...]:
        """Pairs of one seed that both have a finite outcome."""
        return self.matches_at(self.look)

    def matches_at(self, look: float) -> tuple[Match, ...]:
        """The same at another look."""
        pairs = [(a, b, self.outcome(a, look), self.outcome(b, look)) for a, b in self.candidates]
        return tuple(Match(one, other, a, b, look) for one, other, a, b in pairs if a and b)

    def outcome(self, run: RunRecord, look: float | None = None) -> Outcome | None:
        """The run's finite outcome at a look, None where it is not there (yet)."""
        look = self.look if look is None else look
        if look == END:
            found = outcome_of(run.evals, self.domains) if run.complete else None
        else:
            found = outcome_of(run.branches[look], self.domains) if look in run.branches else None
        return found if found and np.isfinite(found.loss) else None

    @property
    def paired(self) -> bool:
        """Whether pairs share their data: no undeclared difference of example hashes, and two or more
        pairs (or no more than that on both sides)."""
        return not self.order_mismatch and (len(self.matches) >= 2 or not self._unmatched)

    @cached_property
    def order_mismatch(self) -> bool:
        """Some pair consumed other examples without declaring it."""
        return any(other_order(m) for m in self.matches)

    @property
    def _unmatched(self) -> bool:
        return min(self.a_all.size, self.b_all.size) >= 2

    @cached_property
    def a(self) -> np.ndarray:
        return np.array([m.a.loss for m in self.matches])

    @cached_property
    def b(self) -> np.ndarray:
        return np.array([m.b.loss for m in self.matches])

    @cached_property
    def a_all(self) -> np.ndarray:
        """Every finite outcome of the control, matched or not."""
        return np.array([o.loss for o in map(self.outcome, by_seed(self.a_runs).values()) if o])

    @cached_property
    def b_all(self) -> np.ndarray:
        return np.array([o.loss for o in map(self.outcome, by_seed(self.b_runs).values()) if o])

    @property
    def shares(self) -> list[float]:
        """Branches that some pair has in common, in order."""
        found = {s for m in self.candidates for s in m[0].branches.keys() & m[1].branches.keys()}
        return sorted(found)

    @cached_property
    def candidates(self) -> list[tuple[RunRecord, RunRecord]]:
        """Runs of one seed on both sides, whatever their state; a copied directory counts once."""
        a_by_seed, b_by_seed = by_seed(self.a_runs), by_seed(self.b_runs)
        return [(a_by_seed[seed], b_by_seed[seed]) for seed in a_by_seed if seed in b_by_seed]


def by_seed(runs: Sequence[RunRecord]) -> dict[int, RunRecord]:
    """One run a seed; of several that claim it, one that no hand has moved."""
    ordered = sorted(runs, key=lambda run: run.edited)
    found: dict[int, RunRecord] = {}
    for run in ordered:
        found.setdefault(run.provenance.seed, run)
    return dict(sorted(found.items()))


def other_order(match: Match) -> bool:
    """Whether two runs consumed other examples, and neither declared to differ in data."""
    if declares_data(match.control) or declares_data(match.treatment):
        return False
    one, other = match.control.provenance, match.treatment.provenance
    if one.data_seed != other.data_seed or one.facts.data_fingerprint != other.facts.data_fingerprint:
        return True
    hashes = [(run.examples_until(match.look) or {}).get("hash") for run in (match.control, match.treatment)]
    return None not in hashes and hashes[0] != hashes[1]


def declares_data(run: RunRecord) -> bool:
    return any(node == "data" or node.startswith("data.") for node in run.provenance.touches)


def bout_of(
    runs: Sequence[RunRecord], scale: str, control: str, variant: str, domains: tuple[str, ...]
) -> Bout:
    """The bout at the end of the runs, or where both variants were stopped: at their last common look."""

    def of(name: str) -> tuple[RunRecord, ...]:
        return tuple(run for run in runs if run.provenance.scale == scale and run.provenance.variant == name)

    at_end = Bout(scale, control, variant, domains, of(control), of(variant))
    stopped = any(run.status.state is State.stopped for run in (*at_end.a_runs, *at_end.b_runs))
    if at_end.matches or not stopped or not at_end.shares:
        return at_end
    return Bout(scale, control, variant, domains, at_end.a_runs, at_end.b_runs, at_end.shares[-1])


def ordered_scales(runs: Sequence[RunRecord]) -> list[str]:
    """Scales from small to large, by the model FLOPs of a run; where these are unknown, by its tokens."""
    size: dict[str, tuple[float, int]] = {}
    for run in runs:
        record = run.provenance
        cost = (record.facts.flops_per_token * record.tokens, record.tokens)
        size[record.scale] = max(size.get(record.scale, (0.0, 0)), cost)
    return sorted(size, key=lambda scale: (size[scale], scale))
