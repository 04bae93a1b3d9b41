"""Noise floor from A/A pairs: SD, degrees of freedom and correlation of a null difference, per scale.

An `experiment=null` sweep trains one variant several times on one order of data with different parameter
seeds. Its library, stored beside its runs, serves every sweep with the same control and tokens.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness.compare.inputs.json_values import dict_or_empty
from harness.compare.inputs.run_records import RunRecord, read_runs
from harness.compare.stats.distributions import clopper_pearson, t_two_sided_p
from harness.compare.stats.paired_effects import NoiseFloor
from harness.config.pair_check import FREE_NODES
from harness.core import atomic_files
from harness.records.paths import NOISE_FLOORS, SweepDir
from harness.records.run.provenance import Provenance
from harness.records.typed_values import fields_fit

MIN_NULL_PAIRS = 40
"""Number of null pairs below which a false-positive rate is too uncertain."""


@dataclass(frozen=True)
class LibraryEntry:
    """Noise floor of one scale, with the facts that a sweep must match to use it."""

    scale: str
    s0: float
    df: float
    correlation: float | None
    runs: int
    non_embedding: int
    tokens: int
    evaluation: str


def noise_floor(losses: Sequence[Iterable[float]], scale: str = "") -> NoiseFloor | None:
    """Estimate the SD s0 of the loss difference between two A/A runs; None if no data order has two of them.

    losses: one group per data order, each of two or more parameter seeds. s0^2 = 2 x pooled variance within
    groups, df = sum (n_g - 1), correlation: intraclass correlation between groups.
    """
    arrays = [np.asarray(list(group), float) for group in losses]
    groups = [finite for array in arrays if (finite := array[np.isfinite(array)]).size > 1]
    df = sum(group.size - 1 for group in groups)
    if not df:
        return None
    within = sum(float(group.var(ddof=1)) * (group.size - 1) for group in groups) / df
    return NoiseFloor(scale, math.sqrt(2 * within), float(df), _intraclass_correlation(groups, within))


def library_entries(runs: Sequence[RunRecord], domains: tuple[str, ...] = ()) -> list[LibraryEntry]:
    """Compute the library entries, one per scale, from the finished runs of one variant of a null sweep."""
    entries = []
    for scale in sorted({run.provenance.scale for run in runs}):
        groups = _losses_by_data_order(runs, scale, domains).values()
        floor = noise_floor([group.values() for group in groups], scale)
        if floor and floor.s0 != 0:
            record = next(run.provenance for run in runs if run.provenance.scale == scale)
            noise = floor.s0, floor.df, floor.correlation, sum(len(group) for group in groups)
            entries.append(LibraryEntry(scale, *noise, *floor_key(record)[1:]))
    return entries


def identical_variants(runs: Sequence[RunRecord], control: str) -> set[str]:
    """Return the variants that are the control under another name: every run has the control's config."""
    control_keys = {_training_key(run) for run in runs if run.provenance.variant == control and run.config}
    different = {run.provenance.variant for run in runs if _training_key(run) not in control_keys}
    return {run.provenance.variant for run in runs} - different - {control}


def same_seed_note(runs: Sequence[RunRecord]) -> str:
    """Report how many pairs of finished runs of equal config and seeds are bitwise equal; empty for none."""
    first_runs: dict[tuple, RunRecord] = {}
    pairs, breaches = 0, []
    for run in (run for run in runs if run.complete and run.config):
        if (first_run := first_runs.setdefault(_training_key(run), run)) is not run:
            pairs += 1
            if not np.array_equal(first_run.evals.losses, run.evals.losses, equal_nan=True):
                breaches.append(f"{first_run.path} and {run.path}")
    if not pairs:
        return ""
    breach_text = f"; not equal, though they must be: {', '.join(breaches)}" if breaches else ""
    return f"Same-seed A/A: {pairs - len(breaches)} of {pairs} pairs are bitwise equal{breach_text}."


@dataclass(frozen=True)
class FalsePositiveRate:
    """Rate of null pairs called different at alpha, with its exact (Clopper-Pearson) interval."""

    hits: int
    pairs: int
    low: float
    high: float
    alpha: float

    @property
    def sentence(self) -> str:
        """Sentence with count, rate and interval."""
        few_pairs = self.pairs < MIN_NULL_PAIRS
        warning = f"; below {MIN_NULL_PAIRS} null pairs this is too few to tell" if few_pairs else ""
        return (
            f"A/A: {self.hits} of {self.pairs} null pairs differ at {self.alpha:g}, a rate of "
            f"{self.hits / self.pairs:.3f} [{self.low:.3f}, {self.high:.3f}]{warning}."
        )


def false_positive_rate(
    runs: Sequence[RunRecord], domains: tuple[str, ...] = (), alpha: float = 0.05
) -> FalsePositiveRate | None:
    """Compute the rate of false positives among null pairs; None if no scale has two data orders with pairs.

    Two runs of one order are compared by a t test, with the noise floor of the *other* orders of that scale.
    """
    p: list[float] = []
    for scale in sorted({run.provenance.scale for run in runs}):
        orders = _losses_by_data_order(runs, scale, domains).values()
        groups = [np.array([*losses.values()]) for losses in orders if len(losses) > 1]
        for position, group in enumerate(groups):
            floor = noise_floor(groups[:position] + groups[position + 1 :])
            if floor and floor.s0 > 0:
                pairs = group[: group.size // 2 * 2].reshape(-1, 2)
                p += [t_two_sided_p(float(b - a) / floor.s0, floor.df) for a, b in pairs]
    if not p:
        return None
    hits = sum(value < alpha for value in p)
    return FalsePositiveRate(hits, len(p), *clopper_pearson(hits, len(p)), alpha)


def store_library(sweep: SweepDir, control: str, domains: tuple[str, ...] = ()) -> list[LibraryEntry]:
    """Measure the noise floors of a null sweep's control, and write them beside its runs if there are any."""
    runs = [run for run in read_runs(sweep) if run.provenance.variant == control and not run.problem]
    if entries := library_entries(runs, domains):
        write_library(sweep, entries)
    return entries


def write_library(sweep: SweepDir, entries: Sequence[LibraryEntry]) -> None:
    """Write the library file of a sweep, with a checksum."""
    scales = [dataclasses.asdict(entry) for entry in entries]
    atomic_files.write_checksummed_json(sweep.noise_floors, {"scales": scales})


class FloorKey(NamedTuple):
    """Facts of a control that a library entry must match."""

    scale: str
    non_embedding: int
    tokens: int
    evaluation: str


def floor_key(record: Provenance) -> FloorKey:
    """Return the facts of a control run that a library entry must match."""
    return FloorKey(record.scale, record.facts.non_embedding, record.tokens, record.facts.eval_fingerprint)


def matching_floors(sweep: SweepDir, controls: Sequence[FloorKey]) -> dict[str, NoiseFloor]:
    """Find the noise floor of each scale in the libraries of this sweep and of the sweeps beside it.

    An entry matches if scale, size (within 1 %), token budget and held-out tokens are the same. Of several,
    the one with the most degrees of freedom is used.
    """
    entries = (entry for entry, _ in matching_entries(sweep, controls).values())
    return {entry.scale: NoiseFloor(entry.scale, entry.s0, entry.df, entry.correlation) for entry in entries}


def matching_entries(sweep: SweepDir, controls: Sequence[FloorKey]) -> dict[str, tuple[LibraryEntry, Path]]:
    """Find the library entry of each scale (see `matching_floors`), with the file that holds it."""
    contents = [(path, atomic_files.read_checksummed_json(path)) for path in _library_files(sweep)]
    entries = [(entry, path) for path, content in contents for entry in _usable_entries(content)]
    entry_by_scale: dict[str, tuple[LibraryEntry, Path]] = {}
    for key in {*controls}:
        matches = [pair for pair in entries if _matches(pair[0], key)]
        if matches:
            entry_by_scale[key.scale] = max(matches, key=lambda pair: (pair[0].df, -pair[0].s0))
    return entry_by_scale


def damaged_libraries(sweep: SweepDir) -> list[str]:
    """Return a sentence for each library that `matching_entries` leaves out because it is damaged."""
    return [
        f"DAMAGED: {path} does not match its checksum or cannot be read, so its noise floors are not used. "
        "Repeat the sweep that measured them, which writes it again."
        for path in _library_files(sweep)
        if os.path.lexists(path) and atomic_files.read_checksummed_json(path) is None
    ]


def _library_files(sweep: SweepDir) -> list[Path]:
    """Return the libraries of a sweep, which may not exist, and of the sweeps beside it, by path."""
    return sorted({sweep.noise_floors.absolute(), *sweep.path.absolute().parent.glob(f"*/{NOISE_FLOORS}")})


def library_note(sweep: SweepDir, controls: Sequence[FloorKey], scale: str) -> str:
    """Return the sentence that names the library whose noise floor is used at a scale."""
    entry, path = matching_entries(sweep, controls)[scale]
    name = Path(os.path.relpath(path, sweep.path)).as_posix()
    noise = f"SD of a difference {entry.s0:.4g}, {entry.df:g} degrees of freedom"
    return f"A/A library: the interval at {scale} uses {name} ({noise})."


def _usable_entries(content: Any) -> list[LibraryEntry]:
    """Return the valid entries of a library file."""
    rows, entries = dict_or_empty(content).get("scales"), []
    for row in rows if isinstance(rows, list) else []:
        try:
            entry = LibraryEntry(**row)
        except TypeError:
            continue
        if fields_fit(entry) and entry.s0 > 0 and entry.df > 0:
            entries.append(entry)
    return entries


def _matches(entry: LibraryEntry, key: FloorKey) -> bool:
    same_size = abs(entry.non_embedding - key.non_embedding) <= 0.01 * key.non_embedding
    same_data = entry.tokens == key.tokens and entry.evaluation == key.evaluation
    return same_size and same_data and entry.scale == key.scale


def _losses_by_data_order(
    runs: Sequence[RunRecord], scale: str, domains: tuple[str, ...]
) -> dict[int, dict[int, float]]:
    """Return the decayed losses of one scale: `{data seed: {parameter seed: loss}}`."""
    groups: dict[int, dict[int, float]] = defaultdict(dict)
    for run in runs:
        if run.provenance.scale == scale and (loss := run.decayed_loss(domains)) is not None:
            groups[run.provenance.data_seed][run.provenance.seed] = loss
    return groups


def _training_key(run: RunRecord) -> tuple:
    record = run.provenance
    config = {key: value for key, value in run.config.items() if key not in FREE_NODES}
    return record.scale, record.seed, record.data_seed, repr(sorted(config.items(), key=str))


def _intraclass_correlation(groups: Sequence[np.ndarray], within: float) -> float | None:
    """Compute the one-way intraclass correlation (Shrout and Fleiss 1979) over data orders."""
    if len(groups) < 2:
        return None
    sizes = np.array([group.size for group in groups])
    means = np.array([group.mean() for group in groups])
    grand = float(np.average(means, weights=sizes))
    between = float((sizes * (means - grand) ** 2).sum()) / (len(groups) - 1)
    size = (sizes.sum() - (sizes**2).sum() / sizes.sum()) / (len(groups) - 1)
    total = between + (size - 1) * within
    return float((between - within) / total) if total else None
