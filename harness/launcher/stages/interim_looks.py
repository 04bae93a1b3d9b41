"""Look by look: every run of a scale to the same decayed checkpoint, then one decision for the scale.

Both variants of a block stop or neither, and with them every other block of their scale. A decision
is written in the ledger when it is taken and never taken again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.config.schema.decision import Stopping
from harness.config.schema.run import Config
from harness.core.errors import UserError
from harness.launcher.run_directories import set_state
from harness.launcher.runs import Block, Run, select_runs
from harness.records.paths import SweepDir
from harness.records.run.integrity import branch_is_complete
from harness.records.run.status import State, read_status
from harness.records.run.training_target import END, write_target
from harness.records.sweep import ledger

Train = Callable[[Sequence[Block]], None]
"""Trains these runs to the goal that lies in their directories; returns when each is there or given up."""
Note = Callable[[str], None]


@dataclass(frozen=True)
class InterimLooks:
    """The looks of a sweep before its end, as shares of the token budget."""

    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.shares:
            raise UserError(
                "rule.stopping=looks: there is no look before the end; schedule=looks has three, "
                "schedule.branches=[0.4,0.6,0.8] names them"
            )


def interim_looks(config: Config, stopping: Stopping) -> InterimLooks | None:
    """None where the rule decides at the end alone. Raises UserError for looks without branches."""
    if stopping is Stopping.none:
        return None
    if config.data.stages:
        raise UserError(
            "rule.stopping=looks: a look before the end would not see data.stages of "
            f"'{config.variant.name}' in full; leave rule.stopping=none"
        )
    return InterimLooks(tuple(sorted(config.schedule.branches)))


def train_by_looks(
    sweep: SweepDir, blocks: Sequence[Block], looks: InterimLooks, train: Train, note: Note
) -> None:
    """Train every block to its end, or to the look at which its scale was stopped."""
    for number, share in enumerate(looks.shares, start=1):
        stopped_before = {name: stop for name in _scales(blocks) if (stop := _stop_of(sweep, name)) < share}
        blocks = [block for block in blocks if block.scale not in stopped_before]
        _train_to(share, blocks, train)
        for scale in _scales(blocks):
            if _decision(sweep, scale, number) is None:
                _decide(sweep, scale, number, looks, note)
            if _stop_of(sweep, scale) == share:
                _mark_stopped(sweep, scale, number, blocks)
    blocks = [block for block in blocks if _stop_of(sweep, block.scale) == END]
    _train_to(END, blocks, train)


def _train_to(share: float, blocks: Sequence[Block], train: Train) -> None:
    for block in blocks:
        for run in block.runs:
            write_target(run.dir, share)
    if remaining := select_runs(blocks, lambda run: not _reached(run, share)):
        train(remaining)


def _reached(run: Run, share: float) -> bool:
    """The run ended, or its branch to this look did; what a worker still has is not there."""
    status = read_status(run.dir)
    if status.state.ended:
        return True
    return status.state is State.waiting and share < END and branch_is_complete(run.dir.branch(share))


def _decide(sweep: SweepDir, scale: str, number: int, looks: InterimLooks, note: Note) -> None:
    from harness.compare.verdict.interim_looks import decide_look  # scipy takes a third of a second to import

    decision = decide_look(sweep, scale, number, looks.shares)
    ledger.append(
        sweep,
        "look",
        {
            "scale": scale,
            "look": number,
            "share": looks.shares[number - 1],
            "stop": decision.stop,
            "outcomes": decision.outcomes,
            "detail": decision.sentence,
        },
    )
    note(decision.sentence)


def _mark_stopped(sweep: SweepDir, scale: str, number: int, blocks: Sequence[Block]) -> None:
    decision = _decision(sweep, scale, number)
    assert decision is not None
    for run in [run for block in blocks if block.scale == scale for run in block.runs]:
        if read_status(run.dir).state is State.waiting:
            set_state(run.dir, State.stopped, decision["detail"])


def _decision(sweep: SweepDir, scale: str, number: int) -> dict[str, Any] | None:
    """What the ledger holds of a look."""
    for entry in ledger.read_valid(sweep, "look"):
        if (entry["content"]["scale"], entry["content"]["look"]) == (scale, number):
            return entry["content"]
    return None


def _stop_of(sweep: SweepDir, scale: str) -> float:
    """The share at which a scale was stopped; 1 where it was not."""
    stops = [
        entry["content"]["share"]
        for entry in ledger.read_valid(sweep, "look")
        if entry["content"]["scale"] == scale and entry["content"]["stop"]
    ]
    return min(stops, default=END)


def _scales(blocks: Sequence[Block]) -> list[str]:
    return [*dict.fromkeys(block.scale for block in blocks)]
