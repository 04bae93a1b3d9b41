"""Five thousand malformed sweeps through four verbs: no traceback, seconds each, nothing written outside.

`make test-fuzz` runs it. The verbs take the cases in turn, in this process, as the command calls them.
`compare` and `watch` run whole, `compare` with a page in every tenth of its cases. `diff` reads all its
records; only the models are stubs, since a malformed record ends before them. Of `plan` the part runs that
reads its evidence. FUZZ_CASES is another number of cases.
"""

from __future__ import annotations

import io
import os
import random
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from harness.cli import main
from harness.compare.checkpoints.diff_types import PredictionDiff
from harness.core.errors import UserError
from harness.inspection.diff import diff_checkpoints
from harness.plan.extrapolation.evidence import read_evidence
from harness.records.paths import RunDir, SweepDir
from harness.records.run.checkpoint_manifest import Manifest, write_manifest
from harness.records.run.find_checkpoint import Checkpoint
from harness.records.run.provenance import read_provenance
from tests.compare.malform import copy, malform
from tests.compare.synthetic import Recipe, write_sweep

CASES, PARTS, SECONDS = int(os.environ.get("FUZZ_CASES", "5000")), 20, 5.0
RECIPE = Recipe(
    seeds=(0, 1),
    steps=40,
    points=4,
    beside={"gate": {"name": "promote", "speed": 0.05}, "tuning": {"mha": {"points": 5}}},
)


@dataclass(frozen=True)
class StubModel:
    """Stands for the model of a run: one array, the same at every step."""

    run: RunDir

    def weights(self, step: int) -> dict[str, np.ndarray]:
        return {"w": np.ones(2) + step}


@pytest.fixture
def sound(tmp_path) -> SweepDir:
    """A ladder of pairs with checkpoints of a few bytes."""
    sweep = write_sweep(tmp_path / "sound" / "sweep", RECIPE)
    for run in sweep.runs():
        record = read_provenance(run)
        assert record
        folder = run.checkpoint(RECIPE.steps)
        folder.mkdir(parents=True)
        (folder / "state").write_bytes(b"weights")
        facts = record.facts
        write_manifest(
            run, Manifest(RECIPE.steps, record.identity, facts.data_fingerprint, "e" * 64, 1.0, {})
        )
    return sweep


def commands(number: int, sweep: SweepDir) -> Callable[[], object]:
    """Return the command of a case."""
    runs = [str(sweep.run("xs", variant, 0).path) for variant in RECIPE.variants]
    page = ["--html"] * (number % 40 == 0)
    return [
        lambda: main(["compare", str(sweep.path), *(page or ["--json"] * (number % 8 == 0))]),
        lambda: main(["watch", str(sweep.path), "--once"]),
        lambda: main(["diff", *runs]),
        lambda: read_evidence(str(sweep.path)),
    ][number % 4]


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != "report.html"}


def outcome(command: Callable[[], object]) -> object:
    """Return the exit status, or the sentence of a user's mistake."""
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            return command()
    except UserError as error:
        return str(error)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_malformed_sweeps_end_no_verb_in_a_traceback(sound, tmp_path, monkeypatch, part):
    monkeypatch.setattr(diff_checkpoints, "prepare_process", lambda *_, trust: None)
    monkeypatch.setattr(diff_checkpoints, "load_run", lambda checkpoint: StubModel(checkpoint.run))
    monkeypatch.setattr(diff_checkpoints, "compare_predictions", _no_predictions)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    outcome(commands(0, sound))  # imports what a page needs
    for number in range(part, CASES, PARTS):
        sweep = copy(sound, tmp_path / "sweeps")
        damage = malform(sweep, random.Random(10_000 + number))
        before, start = files_below(tmp_path), time.process_time()
        try:
            status = outcome(commands(number // PARTS, sweep))
        except Exception as error:
            raise AssertionError(f"case {number}: {damage}") from error
        assert time.process_time() - start < SECONDS, f"case {number}: {damage}"
        assert isinstance(status, str) or status in (0, 2) or number // PARTS % 4 == 3, (
            f"case {number}: {status}"
        )
        assert files_below(tmp_path) == before, f"case {number}: {damage}"


def _no_predictions(a: Checkpoint, b: Checkpoint, runs: object) -> PredictionDiff:
    return PredictionDiff(refused="stubs have no predictions")
