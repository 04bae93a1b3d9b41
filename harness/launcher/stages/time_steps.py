"""Timing pass: step times of the variants in turn, alone on the machine, for the gate."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

from harness.config.schema.decision import Gate
from harness.launcher.run_directories import Note
from harness.launcher.runs import Block
from harness.records.paths import SweepDir
from harness.records.run.provenance import code_hash_of
from harness.records.run.status import ProcessInfo
from harness.records.sweep.timing import read_timing, write_timing


def time_variants(sweep: SweepDir, blocks: Sequence[Block], note: Note) -> None:
    """Write timing.json beside the runs, unless it is there already or no gate asks for it. The pass runs
    after every worker has left. It times one of the blocks with the most variants, at the largest scale of
    these. If it fails, the gate reports that speed was not measured."""
    config = blocks[0].runs[0].config
    block = max(blocks, key=lambda b: (len(b.runs), sum(run.cost for run in b.runs), b.name))
    if config.gate.name is Gate.none or not all(run.ended for block in blocks for run in block.runs):
        return
    variants = sorted(run.variant for run in block.runs)
    key = {"block": block.name, "variants": variants, "code": code_hash_of(config)}
    stored = read_timing(sweep)
    if stored is not None and stored.get("key") == key:
        return
    if config.engine.name != "local":
        reason = f"engine={config.engine.name} trains elsewhere"
        note(f"timing pass: skipped ({reason}); the gate has no step times")
        return
    note(f"timing pass: {', '.join(run.variant for run in block.runs)} at {block.name}, in turn, alone")
    paths = [str(run.dir.path) for run in block.runs]
    command = [sys.executable, "-P", "-m", "harness.inspection.step_benchmark", *paths]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        last_line = (answer.stderr.strip().splitlines() or [f"status {answer.returncode}"])[-1]
        note(f"timing pass: it failed ({last_line}); the gate has no step times")
        return
    measured = json.loads(answer.stdout) | {"key": key, "host": ProcessInfo.current().host}
    write_timing(sweep, measured)
