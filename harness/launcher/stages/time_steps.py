"""Timing pass: step times of the treatments against the control in turn, alone on the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from harness.compare.inputs.step_timing import read_step_timing
from harness.config.schema.decision import Axis, Gate
from harness.config.schema.run import Config
from harness.core.errors import UserError
from harness.launcher.run_directories import Note
from harness.launcher.runs import Block
from harness.records.paths import SweepDir
from harness.records.run.provenance import code_hash_of
from harness.records.run.status import ProcessInfo
from harness.records.sweep.timing import read_timing, write_timing


def time_variants(sweep: SweepDir, blocks: Sequence[Block], note: Note) -> None:
    """Write timing.json beside the runs, unless it is there already or nothing asks for it: a gate, or a rule
    in seconds. The pass runs after every worker has left. Of the blocks that hold the control it times one
    with the most variants, at the largest scale of these. If it fails, nothing that needs step times is
    decided."""
    config = blocks[0].runs[0].config
    control = config.rule.control
    if not needs_step_times(config) or not all(run.ended for block in blocks for run in block.runs):
        return
    block = _block_to_time(blocks, control)
    if block is None:
        return
    runs = sorted(block.runs, key=lambda run: run.variant != control)
    key = {
        "block": block.name,
        "variants": sorted(run.variant for run in runs),
        "code": code_hash_of(config),
    }
    stored = read_timing(sweep)
    if stored is not None and stored.get("key") == key:
        return
    if config.engine.name != "local":
        reason = f"engine={config.engine.name} trains elsewhere"
        note(f"timing pass: skipped ({reason}); there are no step times")
        return
    treatments = ", ".join(run.variant for run in runs[1:])
    note(f"timing pass: {treatments} in turn with {control} at {block.name}, alone")
    command = [sys.executable, "-P", "-m", "harness.inspection.step_benchmark"]
    command += [str(run.dir.path) for run in runs]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        last_line = (answer.stderr.strip().splitlines() or [f"status {answer.returncode}"])[-1]
        note(f"timing pass: it failed ({last_line}); there are no step times")
        return
    measured = json.loads(answer.stdout) | {"key": key, "host": ProcessInfo.current().host}
    write_timing(sweep, measured)
    for line in _result_lines(measured):
        note(line)


def needs_step_times(config: Config) -> bool:
    """Return True if a gate or the rule asks for step times."""
    in_seconds = Axis.seconds in (config.rule.axis, config.rule.match)
    return config.gate.name is not Gate.none or in_seconds


def check_step_times(config: Config) -> None:
    """Raise UserError if the rule decides by step times that nobody will measure."""
    if config.rule.axis is Axis.seconds and config.engine.name != "local":
        raise UserError(
            f"rule.axis=seconds: engine={config.engine.name} trains elsewhere, and steps are timed on this "
            "machine alone, so nothing would be decided. Set rule.axis=tokens or rule.axis=flops."
        )


def _block_to_time(blocks: Sequence[Block], control: str) -> Block | None:
    """Return the block that is timed; None if the control never stands beside a treatment."""
    pairs = [b for b in blocks if len(b.runs) > 1 and control in {run.variant for run in b.runs}]
    cost = {b.name: sum(run.cost for run in b.runs) for b in pairs}
    return max(pairs, key=lambda b: (len(b.runs), cost[b.name], b.name), default=None)


def _result_lines(measured: dict[str, Any]) -> list[str]:
    """Return the ratio of each treatment in words, and how long the pass took."""
    timing = read_step_timing(measured)
    lines = [f"  {timing.ratio_text(name)}" for name in timing.ratios]
    return [*lines, f"timing pass: {measured.get('seconds', 0.0):.0f} s of steps"]
