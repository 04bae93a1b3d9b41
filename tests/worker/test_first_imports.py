"""What a worker imports before the end of its first step."""

import subprocess
import sys

from tests.training.runs import TINY, prepare

PROBE = """
import os, sys
from harness.training.output.run_writer import RunWriter
from harness.worker.main import command

def leave(writer, kind, row):
    heavy = {"orbax", "polars", "pyarrow", "scipy", "torch", "altair", "hydra", "IPython"}
    print("step", row["step"], "imported", sorted(heavy & {*sys.modules}), flush=True)
    os._exit(0)

RunWriter.add = leave
command(sys.argv[1:])
"""
"""Program of a worker that leaves at the first row of its curve, and prints which libraries it has then."""


def test_no_library_is_imported_that_a_step_does_not_need(tmp_path):
    command = [sys.executable, "-c", PROBE, str(prepare(tmp_path, *TINY).path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "step 1 imported []\n", done.stderr
