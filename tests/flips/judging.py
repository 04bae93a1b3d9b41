"""One flip: what `compare`, `verify` and `sweep` said and made of it, against the sweep without it."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.records.paths import SweepDir
from tests.flips import commands
from tests.flips.commands import Answer
from tests.flips.kinds import KINDS, Flip
from tests.flips.masters import Master
from tests.flips.substance import numbers, substance, verdict

_DAMAGE = re.compile(
    r"damage|missing|checksum|hash|does not match|do not match|does not fit|was changed|cannot be read"
    r"|written again|made again|trained again|computed again|compiled again|starts? over|from step 0",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Calm:
    """What the commands say of a master that nothing has hit."""

    compared: Answer
    replayed: Mapping[str, Answer]
    swept: Answer
    after: Answer
    substance: Mapping[str, Any]


@dataclass
class Outcome:
    """What came of one flip."""

    flip: Flip
    told: list[str] = field(default_factory=list)
    """New sentences that name the file or its run as damaged."""
    healed: bool = False
    """After `sweep` the bit is gone and every number is as before."""
    changed: bool = False
    """A command gave another number, or none, and said so."""
    faults: list[str] = field(default_factory=list)
    """Another number without a word, a traceback, a hang; what could be made again and was not."""


def copy_master(folder: Path, master: Master, where: Path) -> None:
    """Copy a sweep and the files beside it that it reads."""
    shutil.copytree(folder / "runs" / master.name, where / "runs" / master.name)
    for name in master.beside:
        (where / "runs" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "runs" / name, where / "runs" / name)


def observe_calm(folder: Path, master: Master) -> Calm:
    """Give every command to an untouched copy."""
    with tempfile.TemporaryDirectory(prefix="flips-") as name:
        where = Path(name)
        copy_master(folder, master, where)
        sweep = master.sweep(where)
        compared = commands.compare(sweep)
        replayed = {}
        if any(kind.replayed for kind in KINDS if kind.master == master):
            directories = [each for run in sweep.runs() for each in (run, *run.branches())]
            places = [each.path.relative_to(sweep.path).as_posix() for each in directories]
            replayed = {place: commands.verify(sweep.path / place, None) for place in places}
        swept = commands.continue_sweep(where, master)
        return Calm(compared, replayed, swept, commands.compare(sweep), substance(sweep))


def judge(folder: Path, flip: Flip, calm: Calm) -> Outcome:
    """Flip the bit in a copy, give every command, and compare."""
    outcome = Outcome(flip)
    with tempfile.TemporaryDirectory(prefix="flips-") as name:
        where = Path(name)
        copy_master(folder, flip.kind.master, where)
        sweep = flip.kind.master.sweep(where)
        struck = flip.strike(sweep.path)
        judge_comparison(outcome, sweep, calm.compared)
        if flip.kind.replayed:
            _replay(outcome, sweep.path, calm)
        swept = commands.continue_sweep(where, flip.kind.master)
        after = commands.compare(sweep)
        _judge_end(outcome, swept, after, calm, substance(sweep))
        gone = flip.is_gone(sweep.path, struck)
        if flip.kind.made_again and not gone and (outcome.told or outcome.changed):
            outcome.faults.append("sweep: the bit is still there")
        outcome.healed &= gone
    return outcome


def judge_comparison(outcome: Outcome, sweep: SweepDir, calm: Answer) -> None:
    """Compare the sweep as the flip left it."""
    answer = commands.compare(sweep)
    weigh(outcome, "compare", answer, calm, bool(answer.content) and numbers(answer) == numbers(calm))


def _replay(outcome: Outcome, sweep: Path, calm: Calm) -> None:
    """Replay the run or branch of the file."""
    place = re.match(r"[^/]+/[^/]+/seed\d+(/branch\d+)?", outcome.flip.file)
    assert place
    before = calm.replayed[place[0]]
    answer = commands.verify(sweep / place[0], None)
    weigh(outcome, "verify", answer, before, answer.lines == before.lines and answer.status == before.status)


def _judge_end(outcome: Outcome, swept: Answer, after: Answer, calm: Calm, held: dict[str, Any]) -> None:
    views = [bool(each.content) and verdict(each.content) for each in (after, calm.after)]
    # What is timed again has other times: then every number but those has to be as before.
    same_verdict = views[0] == views[1] or outcome.flip.kind.name == "sweep: timing"
    differing = [key for key in {*held, *calm.substance} if held.get(key) != calm.substance.get(key)]
    same = same_verdict and not differing and swept.status == 0
    detail = f" ({', '.join(sorted(differing)[:4]) or swept.text[-500:]})"
    weigh(outcome, "sweep", swept, calm.swept, same, detail)
    if outcome.flip.kind.made_again and not same and not _is_removed(outcome.flip, differing, held):
        outcome.faults.append(f"sweep: not as before{detail}")
    if not same_verdict:
        weigh(outcome, "compare after sweep", after, calm.after, same_verdict)
    outcome.healed = same


def _is_removed(flip: Flip, differing: list[str], held: dict[str, Any]) -> bool:
    """Whether the file's checkpoint is gone and all else is as before: the run stands on a later one."""
    step = re.search(r"checkpoints/(\d+)", flip.file)
    parts = [f"{name} {int(step[1])}" for name in ("checkpoint", "manifest")] if step else []
    return bool(differing) and all(key.partition(" ")[2] in parts and key not in held for key in differing)


def weigh(outcome: Outcome, name: str, answer: Answer, calm: Answer, same: bool, detail: str = "") -> None:
    """Note the new words of an answer, and as a fault a difference without any."""
    words = [line for line in sorted(answer.lines - calm.lines) if _is_word(line, outcome.flip)]
    outcome.told += [f"{name}: {line}" for line in words]
    if answer.broke:
        outcome.faults.append(f"{name}: {answer.status}: {answer.text[-1500:]}")
    elif not same and not words:
        outcome.faults.append(f"{name}: other numbers without a word{detail}")
    outcome.changed |= not same


def _is_word(line: str, flip: Flip) -> bool:
    return bool(_DAMAGE.search(line)) and any(commands.fold(name) in line for name in _names(flip))


def _names(flip: Flip) -> list[str]:
    """Names under which a sentence may speak of the file: its own, its checkpoint's, its run's."""
    parts = flip.file.split("/")
    run = [name for name in ("/".join(parts[:3]),) if len(parts) > 3]
    checkpoint = [parts[i + 1] for i, part in enumerate(parts) if part == "checkpoints"]
    return [parts[-1], *run, *(f"checkpoints/{name}" for name in checkpoint), *flip.kind.also_called]
