"""Whole sweeps beside hostile trackers: the same bits, the same verdict, and no run ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.records.paths import SweepDir
from harness.records.run.metrics import read_curve
from harness.records.run.status import State, read_status
from tests.cli.support import SOURCE, run

TINY = (
    *("sweep", "experiment=attention", "variant=mha,short", "scale=xs", "seed=0", "scale.parameters=10000"),
    *("scale.tokens=5000", "evaluation.tokens=2048", "schedule.branches=[]"),
)
HOSTILE = Path(__file__).parent / "hostile"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> SweepDir:
    folder = tmp_path_factory.mktemp("plain")
    status, _, errors = run(*TINY, folder=folder, seconds=600)
    assert status == 0, errors
    return SweepDir(folder / "runs/attention")


@pytest.mark.parametrize("deed", ["hang", "raise", "die"])
def test_a_hostile_tracker_changes_no_bit_and_ends_no_run(plain, tmp_path, deed):
    path = f"{HOSTILE}:{SOURCE}"
    words = (*TINY, "tracker=wandb")
    status, _, errors = run(*words, folder=tmp_path, seconds=600, PYTHONPATH=path, HOSTILE=deed)
    assert status == 0, errors
    assert "`harness mirror runs/attention --to wandb` sends the rest" in errors
    sweep = SweepDir(tmp_path / "runs/attention")
    assert sweep.report.exists()
    for expected, trained in zip(plain.runs(), sweep.runs(), strict=True):
        assert read_status(trained).state is State.finished
        for kind in ("steps", "evals"):
            curves = [read_curve(run, kind).drop("device_seconds", "input_seconds", strict=False)
                      for run in (expected, trained)]  # fmt: skip
            assert curves[0].equals(curves[1], null_equal=True)


def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_trained(tmp_path):
    status, _, errors = run(*TINY, "tracker=mlflow", folder=tmp_path, PYTHONPATH=SOURCE, PYTHONSAFEPATH="1")
    if status == 0:
        pytest.skip("MLflow is installed here, so it is not refused")
    assert status == 2
    assert "pip install 'ab-harness[mlflow]'" in errors
    assert not (tmp_path / "runs").exists()
