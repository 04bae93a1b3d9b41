"""What A/A pairs say about noise: SD, degrees of freedom and correlation of a null difference, per scale.

An `experiment=null` sweep trains one variant several times on the same order of data with other
parameter seeds. Its library lies beside its runs and serves every sweep that trains the same
control on the same tokens.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness.compare.inputs.run_records import RunRecord, outcome_of, read_runs
from harness.compare.stats.distributions import clopper_pearson, t_two_sided
from harness.compare.stats.paired_effects import NoiseFloor
from harness.core import atomic_files
from harness.records.paths import LIBRARY, SweepDir

ENOUGH = 40
"""Null pairs below which a false-positive rate says nothing."""


@dataclass(frozen=True)
class LibraryEntry:
    """One scale of a library, with what a sweep must share to use it."""

    scale: str
    s0: float
    df: float
    correlation: float | None
    runs: int
    non_embedding: int
    tokens: int
    evaluation: str


def noise_floor(losses: Sequence[Iterable[float]], scale: str = "") -> NoiseFloor | None:
    """SD of the difference of two A/A runs, from groups of losses that share their order of data.

    losses: one group a data order, each of two or more parameter seeds. s0^2 = 2 x pooled variance
    within groups, df = sum (n_g - 1); correlation: the intraclass one between groups. None without
    two runs of one order.
    """
    groups = [np.asarray(list(group), float) for group in losses]
    groups = [group[np.isfinite(group)] for group in groups]
    groups = [group for group in groups if group.size > 1]
    df = sum(group.size - 1 for group in groups)
    if not df:
        return None
    within = sum(float(group.var(ddof=1)) * (group.size - 1) for group in groups) / df
    return NoiseFloor(scale, math.sqrt(2 * within), float(df), _intraclass(groups, within))


def library_of(runs: Sequence[RunRecord], domains: tuple[str, ...] = ()) -> list[LibraryEntry]:
    """The entries that the finished runs of one variant of a null sweep support."""
    by_scale: dict[str, list[RunRecord]] = defaultdict(list)
    for run in runs:
        by_scale[run.provenance.scale].append(run)
    return [entry for scale, own in sorted(by_scale.items()) if (entry := _entry(scale, own, domains))]


def twins_of(runs: Sequence[RunRecord], control: str) -> set[str]:
    """Variants that are the control under another name: each of their runs has its config but for that."""
    own = {_same_run(run) for run in runs if run.provenance.variant == control and run.config}
    others = {run.provenance.variant for run in runs} - {control}
    return {
        name
        for name in others
        if all(_same_run(run) in own for run in runs if run.provenance.variant == name)
    }


def twin_sentence(runs: Sequence[RunRecord]) -> str:
    """Whether runs that are equal in config and both seeds are bitwise equal, as an A/A pair must be.

    Empty where no two finished runs are.
    """
    seen: dict[tuple, RunRecord] = {}
    pairs, breaches = 0, []
    for run in runs:
        if run.complete and run.config and (twin := seen.setdefault(_same_run(run), run)) is not run:
            pairs += 1
            if not np.array_equal(twin.evals.losses, run.evals.losses, equal_nan=True):
                breaches.append(f"{twin.path} and {run.path}")
    if not pairs:
        return ""
    broken = f"; not equal, though they must be: {', '.join(breaches)}" if breaches else ""
    return f"Same-seed A/A: {pairs - len(breaches)} of {pairs} pairs are bitwise equal{broken}."


@dataclass(frozen=True)
class NullRate:
    """How often a null pair was called different at alpha, with the exact interval of that rate."""

    hits: int
    pairs: int
    low: float
    high: float
    alpha: float

    @property
    def sentence(self) -> str:
        few = f"; below {ENOUGH} null pairs this is too few to tell" if self.pairs < ENOUGH else ""
        return (
            f"A/A: {self.hits} of {self.pairs} null pairs differ at {self.alpha:g}, a rate of "
            f"{self.hits / self.pairs:.3f} [{self.low:.3f}, {self.high:.3f}]{few}."
        )


def is_null(runs: Sequence[RunRecord]) -> bool:
    """Whether a sweep trains A/A pairs: several parameter seeds on one order of data."""
    seeds: dict[tuple, set[int]] = defaultdict(set)
    for run in runs:
        record = run.provenance
        seeds[record.scale, record.variant, record.data_seed].add(record.seed)
    return any(len(group) > 1 for group in seeds.values())


def null_rate(
    runs: Sequence[RunRecord], domains: tuple[str, ...] = (), alpha: float = 0.05
) -> NullRate | None:
    """False positives among null pairs: two runs of one order, tested by t against the noise floor that
    the *other* orders of that scale give. None where no scale has two such orders."""
    p: list[float] = []
    for scale in sorted({run.provenance.scale for run in runs}):
        groups = [np.array(list(g.values())) for g in _groups(runs, scale, domains).values() if len(g) > 1]
        for position, group in enumerate(groups):
            floor = noise_floor(groups[:position] + groups[position + 1 :])
            if floor and floor.s0 > 0:
                pairs = group[: group.size // 2 * 2].reshape(-1, 2)
                p += [t_two_sided(float(two - one) / floor.s0, floor.df) for one, two in pairs]
    if not p:
        return None
    hits = sum(value < alpha for value in p)
    return NullRate(hits, len(p), *clopper_pearson(hits, len(p)), alpha)


def store_library(sweep: SweepDir, control: str, domains: tuple[str, ...] = ()) -> list[LibraryEntry]:
    """Measure the noise floors of a null sweep's control and write them beside its runs; nothing is
    written for a sweep without A/A pairs."""
    runs = [run for run in read_runs(sweep) if run.provenance.variant == control]
    entries = library_of(runs, domains) if is_null(runs) else []
    if entries:
        write_library(sweep, entries)
    return entries


def write_library(sweep: SweepDir, entries: Sequence[LibraryEntry]) -> None:
    atomic_files.write_json(sweep.library, {"scales": [dataclasses.asdict(entry) for entry in entries]})


class Wanted(NamedTuple):
    """What a library's entry must share with a control."""

    scale: str
    non_embedding: int
    tokens: int
    evaluation: str


def find_floors(sweep: SweepDir, controls: Sequence[RunRecord]) -> dict[str, NoiseFloor]:
    """By scale, the noise floor of a library in this sweep or beside it that fits the control's runs."""
    records = [(run.provenance, run.provenance.facts) for run in controls]
    return fitting_floors(
        sweep,
        [Wanted(r.scale, facts.non_embedding, r.tokens, facts.eval_fingerprint) for r, facts in records],
    )


def fitting_floors(sweep: SweepDir, controls: Sequence[Wanted]) -> dict[str, NoiseFloor]:
    """By scale, the noise floor of a library in this sweep or beside it.

    It fits if scale, size (1 %), token budget and held-out tokens are the same; of several, the one with
    the most degrees of freedom.
    """
    best = {scale: entry for scale, (entry, _) in fitting(sweep, controls).items()}
    return {scale: NoiseFloor(scale, each.s0, each.df, each.correlation) for scale, each in best.items()}


def fitting(sweep: SweepDir, controls: Sequence[Wanted]) -> dict[str, tuple[LibraryEntry, Path]]:
    """By scale, the entry that such a floor is of, and the file that it stands in."""
    entries = [
        (entry, path) for path in _library_files(sweep) for entry in _read(atomic_files.read_json(path))
    ]
    found: dict[str, tuple[LibraryEntry, Path]] = {}
    for wanted in {*controls}:
        fit = [each for each in entries if _fits(each[0], wanted)]
        if fit:
            found[wanted.scale] = max(fit, key=lambda each: (each[0].df, -each[0].s0))
    return found


def _library_files(sweep: SweepDir) -> list[Path]:
    return sorted({sweep.library.absolute(), *sweep.path.absolute().parent.glob(f"*/{LIBRARY}")})


def _read(content: Any) -> list[LibraryEntry]:
    """The usable entries of a library file; what does not fit is left out."""
    rows = content.get("scales") if isinstance(content, dict) else None
    entries = []
    for row in rows if isinstance(rows, list) else []:
        try:
            entry = LibraryEntry(**row)
            if entry.s0 > 0 and entry.df > 0:
                entries.append(entry)
        except TypeError:
            continue
    return entries


def _fits(entry: LibraryEntry, wanted: Wanted) -> bool:
    same = (entry.scale, entry.tokens, entry.evaluation) == (wanted.scale, wanted.tokens, wanted.evaluation)
    return same and abs(entry.non_embedding - wanted.non_embedding) <= 0.01 * wanted.non_embedding


def _entry(scale: str, runs: Sequence[RunRecord], domains: tuple[str, ...]) -> LibraryEntry | None:
    groups = _groups(runs, scale, domains)
    floor = noise_floor([group.values() for group in groups.values()], scale)
    if floor is None or floor.s0 == 0:
        return None
    facts, tokens = runs[0].provenance.facts, runs[0].provenance.tokens
    count = sum(len(group) for group in groups.values())
    return LibraryEntry(
        scale, floor.s0, floor.df, floor.correlation, count, facts.non_embedding, tokens,
        facts.eval_fingerprint,
    )  # fmt: skip


def _groups(runs: Sequence[RunRecord], scale: str, domains: tuple[str, ...]) -> dict[int, dict[int, float]]:
    """Decayed outcomes of one scale: by order of data, by parameter seed."""
    groups: dict[int, dict[int, float]] = defaultdict(dict)
    for run in runs:
        if run.provenance.scale == scale and run.complete and not run.diverged:
            outcome = outcome_of(run.evals, domains)
            if outcome and outcome.decayed:
                groups[run.provenance.data_seed][run.provenance.seed] = outcome.loss
    return groups


_NAMES = ("variant", "cluster", "engine", "resume", "rule", "gate", "tune", "profile", "runs")
"""Nodes in which two runs may differ and yet be the same training, bit for bit."""


def _same_run(run: RunRecord) -> tuple:
    record = run.provenance
    config = {key: value for key, value in run.config.items() if key not in _NAMES}
    return record.scale, record.seed, record.data_seed, repr(sorted(config.items(), key=str))


def _intraclass(groups: Sequence[np.ndarray], within: float) -> float | None:
    """One-way intraclass correlation (Shrout and Fleiss 1979) over data orders."""
    if len(groups) < 2:
        return None
    sizes = np.array([group.size for group in groups])
    means = np.array([group.mean() for group in groups])
    grand = float(np.average(means, weights=sizes))
    between = float((sizes * (means - grand) ** 2).sum()) / (len(groups) - 1)
    size = (sizes.sum() - (sizes**2).sum() / sizes.sum()) / (len(groups) - 1)
    total = between + (size - 1) * within
    return float((between - within) / total) if total else None
