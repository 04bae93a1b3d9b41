"""The timing pass: step times of the variants in turn, alone on the machine, for the gate."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from harness.config.schema.decision import Gate
from harness.config.schema.run import Config
from harness.core import atomic_files
from harness.launcher.runs import Block
from harness.records.paths import SweepDir
from harness.records.run.provenance import code_of
from harness.records.run.status import ProcessInfo
from harness.records.sweep import ledger

Note = Callable[[str], None]


def time_variants(sweep: SweepDir, blocks: Sequence[Block], note: Note) -> None:
    """Leave timing.json beside the runs, unless it is there already or no gate asks for it.

    It times one block of the largest scale at which all variants are that any scale has beside each other,
    after every worker has left. Where the pass fails, the gate says that speed was not measured.
    """
    config = blocks[0].runs[0].config
    block = max(blocks, key=lambda block: (len(block.runs), block.cost, block.name))
    if config.gate.name is Gate.none or not all(run.ended for block in blocks for run in block.runs):
        return
    key = _key(block, config)
    stored = atomic_files.read_json(sweep.timing)
    if isinstance(stored, dict) and stored.get("key") == key:
        return
    if config.engine.name != "local":
        where = f"engine={config.engine.name} trains elsewhere"
        note(f"timing pass: not made, since {where}; the gate has no step times")
        return
    note(f"timing pass: {', '.join(run.variant for run in block.runs)} at {block.name}, in turn, alone")
    command = [
        sys.executable,
        "-m",
        "harness.inspection.step_benchmark",
        *(str(run.dir.path) for run in block.runs),
    ]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        said = (answer.stderr.strip().splitlines() or [f"status {answer.returncode}"])[-1]
        note(f"timing pass: it failed ({said}); the gate has no step times")
        return
    measured = json.loads(answer.stdout) | {"key": key, "host": ProcessInfo.here().host}
    atomic_files.write_json(sweep.timing, measured)
    ledger.append(sweep, "timing", measured)


def _key(block: Block, config: Config) -> dict[str, Any]:
    """What a measurement holds for: these variants, this block, this code."""
    variants = sorted(run.variant for run in block.runs)
    return {"block": block.name, "variants": variants, "code": code_of(config)}
