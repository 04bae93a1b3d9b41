"""The same for files of the cache: what an empty folder gets from a cache in which a bit was flipped."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.flips import commands
from tests.flips.commands import Answer
from tests.flips.judging import Outcome, weigh
from tests.flips.kinds import Flip
from tests.flips.masters import FRESH, NULL, PLAN
from tests.flips.substance import numbers, substance


@dataclass(frozen=True)
class CalmCache:
    """What commands make of the cache as it is."""

    answers: Mapping[str, Answer]
    substance: Mapping[str, Any]


def observe_cache(folder: Path) -> CalmCache:
    """Give every command with an untouched copy of the cache."""
    with tempfile.TemporaryDirectory(prefix="flips-") as name:
        where = _prepare(folder, Path(name))
        answers = {command: commands.run(where, *_LINES[command]) for command in _LINES}
        return CalmCache(answers, substance(FRESH.sweep(where)))


def judge_cache(folder: Path, flip: Flip, calm: CalmCache) -> Outcome:
    """Flip the bit in a copy of the cache, give the commands that read the file, and compare."""
    outcome = Outcome(flip)
    with tempfile.TemporaryDirectory(prefix="flips-") as name:
        where = _prepare(folder, Path(name))
        struck = flip.strike(where / "cache")
        held: dict[str, Any] = dict(calm.substance)
        for command in flip.kind.commands:
            answer, before = commands.run(where, *_LINES[command]), calm.answers[command]
            if command == "sweep":
                held = substance(FRESH.sweep(where))
                same = answer.status == 0 and held == calm.substance
                answer = commands.with_logs(answer, [run.log for run in FRESH.sweep(where).runs()])
            else:
                same = answer.status == before.status and _numbers(answer) == _numbers(before)
            weigh(outcome, command, answer, before, same)
        gone = flip.is_gone(where / "cache", struck)
        if flip.kind.made_again and not gone and (outcome.told or outcome.changed):
            outcome.faults.append("the bit is still there")
        outcome.healed = held == calm.substance and gone
    return outcome


def _numbers(answer: Answer) -> str:
    """What a plan or a comparison printed, without how long it took."""
    try:
        content = json.loads(answer.output)
    except ValueError:
        return answer.output
    if "times" in content:
        return numbers(dataclasses.replace(answer, content=content))
    return re.sub(r'"seconds": [^,\n]*', "", answer.output)


_LINES = {
    "plan": ("plan", *PLAN, "--json"),
    "compare": ("compare", f"zip://runs/{NULL.name}::{NULL.name}.zip", "--json"),
    "sweep": ("sweep", *FRESH.arguments),
}


def _prepare(folder: Path, where: Path) -> Path:
    """Return a folder with nothing but a copy of the cache, and a sweep to fetch."""
    shutil.copytree(folder / "cache", where / "cache")
    shutil.copy2(folder / f"{NULL.name}.zip", where)
    return where
