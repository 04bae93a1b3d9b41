"""Malformed records: each is a flag or a note in words, quickly, and the others are judged."""

from __future__ import annotations

import io
import json
import random
import time
from collections import defaultdict
from pathlib import Path
from typing import cast

import pytest
from rich.console import Console

from harness.cli.views.watch_frame import draw_frame
from harness.compare import compare, dumps
from harness.compare.context.lineage import sweep_provenance
from harness.compare.inputs.noise_floor import LibraryEntry, write_library
from harness.compare.inputs.run_records import read_runs
from harness.compare.results.comparison import Comparison
from harness.records.paths import SweepDir
from harness.records.sweep import ledger
from harness.records.sweep.timing import write_timing
from harness.report.frames.sweep_progress import ProgressReader
from harness.report.tables.terminal import print_comparison
from tests.compare.malform import copy, flip_bit, malform
from tests.compare.synthetic import Recipe, write_sweep

RECIPE = Recipe(
    scales={"xs": 10**7, "s": 3 * 10**7},
    seeds=(0, 1),
    steps=40,
    points=4,
    beside={"gate": {"name": "promote", "speed": 0.05}, "tuning": {"mha": {"points": 5}}},
)
SECONDS = 5.0
"""Processor seconds that one malformed sweep may take; those of the clock depend on the machine's load."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> SweepDir:
    """A sweep with every record that a verdict reads: rule, ledger, timing, library, samples."""
    sweep = write_sweep(tmp_path_factory.mktemp("sound") / "sweep", RECIPE)
    variants = {name: {"step_seconds": 1.0, "peak_bytes": 10} for name in RECIPE.variants}
    names = [f"{scale}/{v}/seed{k}" for scale in RECIPE.scales for v in RECIPE.variants for k in RECIPE.seeds]
    ledger.append(sweep, "placement", {"runs": {name: {"lane": 0, "mesh": {"data": 1}} for name in names}})
    write_timing(sweep, {"scale": "xs", "variants": variants})
    record = next(run.provenance for run in read_runs(sweep) if run.provenance.scale == "xs")
    size, data = record.facts.non_embedding, record.facts.eval_fingerprint
    entry = LibraryEntry("xs", 0.0012, 12.0, 0.2, 16, size, record.tokens, data)
    write_library(SweepDir(sweep.path.parent / "null"), [entry])
    return sweep


def shown(sweep: SweepDir) -> Comparison:
    """Judge a sweep and show it in every way that a stranger's sweep is looked at."""
    start = time.process_time()
    comparison = compare(sweep)
    json.loads(dumps(comparison))
    sweep_provenance(sweep, comparison)
    console = Console(file=io.StringIO(), width=100)
    print_comparison(comparison, console)
    if any(sweep.runs()):
        watched(sweep)
    assert time.process_time() - start < SECONDS
    return comparison


def numbers(comparison: Comparison) -> list:
    gates = [(gate.promote, gate.won) for gate in comparison.gate or ()]
    rungs = [(r.scale, r.variant, r.delta, r.k, r.decision, r.looks) for r in comparison.rungs]
    return [*rungs, *((one.variant, one.k, one.decision) for one in comparison.ladder), *gates]


def is_said(comparison: Comparison) -> bool:
    """Whether a flag, a note or a deviation says that something is damaged."""
    words = [*comparison.flags, *(note.partition(":")[0] for note in comparison.notes)]
    return bool({"DAMAGED", "HAND_EDITED"} & {*words}) or bool(comparison.deviations)


def check(sound: SweepDir, folder, seeds) -> None:
    """Malform the sweep in many ways, each from its seed."""
    for seed in seeds:
        sweep = copy(sound, folder / "sweeps")
        damage = malform(sweep, random.Random(seed))
        try:
            shown(sweep)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {damage}") from error


def test_the_sound_sweep_is_not_damaged(sound):
    comparison = shown(sound)
    assert not is_said(comparison)
    assert [note for note in comparison.notes if "../null/aa_library.json" in note]


@pytest.mark.parametrize("part", range(5))
def test_malformed_records_never_raise(sound, tmp_path, part):
    """Sixty of the kinds of which `make test-fuzz` tries five thousand."""
    check(sound, tmp_path, range(12 * part, 12 * part + 12))


def test_watch_says_which_records_are_damaged(sound, tmp_path):
    sweep = copy(sound, tmp_path / "sweeps")
    before = watched(sweep)
    assert "damaged" not in before
    for name, words in (("run.json", "7 runs"), ("status.json", "queue: s/mha/seed1")):
        file = sweep.run("s", "mha", 1).path / name
        content = file.read_bytes()
        flip_bit(file, random.Random(0))
        assert f"damaged, so not shown as they are: s/mha/seed1/{name}" in watched(sweep)
        assert words in watched(sweep)
        file.write_bytes(content)
    assert watched(sweep) == before


def watched(sweep: SweepDir) -> str:
    """Return the frame that watch prints."""
    console = Console(file=io.StringIO(), width=100)
    console.print(draw_frame(ProgressReader(sweep).read(1e9), 100, None))
    return cast(io.StringIO, console.file).getvalue()


def test_a_flipped_bit_changes_no_number_in_silence(sound, tmp_path):
    """Four files of each name, of runs and branches; `make test-fuzz` and `make test-flips` try the rest."""
    before = numbers(compare(sound))
    by_name = defaultdict[str, list[Path]](list)
    for path in sorted(sound.path.parent.rglob("*.*")):
        by_name[path.name.partition("-")[0]].append(path.relative_to(sound.path.parent))
    files = sorted(name for alike in by_name.values() for name in {*alike[:2], *alike[-2:]})
    assert len(files) > 25
    for seed, name in enumerate(files):
        sweep = copy(sound, tmp_path / "sweeps")
        flip_bit(tmp_path / "sweeps" / name, random.Random(seed))
        comparison = compare(sweep)
        assert numbers(comparison) == before or is_said(comparison), name
