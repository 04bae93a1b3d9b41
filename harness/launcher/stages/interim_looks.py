"""Interim looks: every run of a scale trains to the same decayed checkpoint, then the scale is decided.

Either all blocks of a scale stop, with both variants, or none does. A decision is written into the ledger
when it is taken, and never taken again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from harness.config.schema.data import Order
from harness.config.schema.decision import Axis, Stopping
from harness.config.schema.run import Config
from harness.core.errors import UserError
from harness.launcher.run_directories import Note, set_state
from harness.launcher.runs import Block, Run, select_runs
from harness.records.paths import SweepDir
from harness.records.run.integrity import branch_is_complete
from harness.records.run.status import State, read_status
from harness.records.run.training_target import END, write_target
from harness.records.sweep import ledger

Train = Callable[[Sequence[Block]], None]
"""Trains runs to the targets in their directories; returns when each is reached, or given up."""


Looks = tuple[float, ...]
"""Looks of a sweep before its end, as shares of the token budget; at least one."""


def interim_looks(config: Config, stopping: Stopping) -> Looks | None:
    """Return the looks; None if the rule decides only at the end. Raises UserError without branches,
    or if the rule decides by FLOPs or seconds."""
    if stopping is Stopping.none:
        return None
    if config.rule.axis is not Axis.tokens:
        raise UserError(
            f"rule.axis={config.rule.axis.value}: looks test the loss at equal tokens. Set "
            "rule.stopping=none, or leave rule.axis=tokens."
        )
    if config.data.stages or config.data.order is Order.length:
        key = "data.stages" if config.data.stages else "data.order=length"
        raise UserError(
            f"rule.stopping=looks: a look before the end would not see {key} of "
            f"'{config.variant.name}' in full. Set rule.stopping=none."
        )
    if not config.schedule.branches:
        raise UserError(
            "rule.stopping=looks: there is no look before the end. Choose schedule=looks (three looks), "
            "or set schedule.branches=[0.4,0.6,0.8]."
        )
    return tuple(sorted(config.schedule.branches))


def train_by_looks(sweep: SweepDir, blocks: Sequence[Block], looks: Looks, train: Train, note: Note) -> None:
    """Train every block to its end, or to the look at which its scale was stopped."""
    for number, share in enumerate(looks, start=1):
        stops = {scale: _stop_share(sweep, scale) for scale in {block.scale for block in blocks}}
        blocks = [block for block in blocks if stops[block.scale] >= share]
        _train_to(share, blocks, train)
        _pass_notes_on(blocks, note)
        for scale in dict.fromkeys(block.scale for block in blocks):
            decision = _read_decision(sweep, scale, number) or _decide(sweep, scale, number, looks, note)
            if _stop_share(sweep, scale) == share:
                for run in [run for block in blocks if block.scale == scale for run in block.runs]:
                    if read_status(run.dir).state is State.waiting:
                        set_state(run.dir, State.stopped, decision["detail"])
    blocks = [block for block in blocks if _stop_share(sweep, block.scale) == END]
    _train_to(END, blocks, train)


def _train_to(share: float, blocks: Sequence[Block], train: Train) -> None:
    for block in blocks:
        for run in block.runs:
            write_target(run.dir, share)
    if remaining := select_runs(blocks, lambda run: not _has_reached(run, share)):
        train(remaining)


def _pass_notes_on(blocks: Sequence[Block], note: Note) -> None:
    """Print what runs that wait at a look noted so far; the message of their end has only what follows."""
    for run in [run for block in blocks for run in block.runs]:
        status = read_status(run.dir)
        _, _, notes = status.message.partition("; ")
        if status.state is State.waiting and notes:
            note(f"{run.name}: {notes}")


def _has_reached(run: Run, share: float) -> bool:
    """Return True if the run has ended, or waits and its branch for this look is complete."""
    status = read_status(run.dir)
    if status.state.ended:
        return True
    return status.state is State.waiting and share < END and branch_is_complete(run.dir.branch(share))


def _decide(sweep: SweepDir, scale: str, number: int, looks: Looks, note: Note) -> dict[str, Any]:
    from harness.compare.verdict.interim_looks import decide_look  # scipy takes a third of a second to import

    decision = decide_look(sweep, scale, number, looks)
    content = {
        "scale": scale,
        "look": number,
        "share": looks[number - 1],
        "stop": decision.stop,
        "outcomes": decision.outcomes,
        "detail": decision.sentence,
    }
    ledger.append(sweep, "look", content)
    note(decision.sentence)
    return content


def _read_decision(sweep: SweepDir, scale: str, number: int) -> dict[str, Any] | None:
    """Return the decision of a look from the ledger; None if it was not taken yet."""
    for entry in ledger.read_valid(sweep, "look"):
        if (entry["content"]["scale"], entry["content"]["look"]) == (scale, number):
            return entry["content"]
    return None


def _stop_share(sweep: SweepDir, scale: str) -> float:
    """Return the share at which a scale was stopped; 1 if it was not."""
    stops = [
        entry["content"]["share"]
        for entry in ledger.read_valid(sweep, "look")
        if entry["content"]["scale"] == scale and entry["content"]["stop"]
    ]
    return min(stops, default=END)
