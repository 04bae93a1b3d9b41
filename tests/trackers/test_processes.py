"""A tracker that hangs, raises or dies in its process, which the end of a sweep says within seconds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from harness.config.schema.tracker import TrackerConfig, WandbConfig
from harness.trackers.mirror_processes import SweepMirrors
from tests.compare.synthetic import Recipe, write_sweep

TINY = Recipe(scales={"xs": 10**6}, seeds=(0,), steps=20, branches=())
HOSTILE = str(Path(__file__).parent / "hostile")


@pytest.mark.parametrize(
    ("deed", "problem"),
    [("hang", "it does not answer"), ("raise", "ConnectionError: no W&B today"), ("die", "ended by SIGKILL")],
)
def test_the_end_of_a_sweep_says_what_was_not_sent_and_how_to_send_it(tmp_path, monkeypatch, deed, problem):
    monkeypatch.setenv("PYTHONPATH", f"{HOSTILE}:{Path(__file__).parents[2]}")
    monkeypatch.setenv("HOSTILE", deed)
    sweep, notes = write_sweep(tmp_path / "synthetic", TINY), []
    mirrors = SweepMirrors(TrackerConfig(wandb=WandbConfig()), notes.append, is_beside_training=False)
    mirrors.start(sweep)
    start = time.monotonic()
    assert not mirrors.finish(stall_seconds=4.0)
    assert time.monotonic() - start < 60
    assert problem in notes[0]
    assert f"`harness mirror {sweep.path} --to wandb` sends the rest" in notes[0]
