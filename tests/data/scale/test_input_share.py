"""Waiting for batches of a run of the demo: a share of its time that cannot be seen."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from harness.records.paths import RunDir
from harness.records.run.status import read_status
from tests.data.scale.made_files import ROOT

pytestmark = pytest.mark.slow
RUN = ["sweep", "experiment=attention", "variant=mha", "scale=m", "seed=0", "rule.positive_control=null"]


def test_a_run_of_the_demo_hardly_waits_for_input(folder):
    command = [sys.executable, "-m", "harness.cli", *RUN]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    share = read_status(RunDir(folder / "runs/attention/m/mha/seed0")).input_share
    print(f"\ninput share {share:.2%}")
    assert share < 0.02
