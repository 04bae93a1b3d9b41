"""Every slow proof belongs to a make target that runs it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class SlowRun:
    """A command of the Makefile that runs slow proofs."""

    target: str
    paths: tuple[str, ...]
    ignored: tuple[str, ...]

    def runs(self, file: str) -> bool:
        return _is_below(file, self.paths) and not _is_below(file, self.ignored)


def _is_below(file: str, paths: tuple[str, ...]) -> bool:
    return any(Path(file).is_relative_to(path) for path in paths)


def slow_runs(makefile: str) -> Iterator[SlowRun]:
    target = ""
    for line in makefile.replace("\\\n", " ").splitlines():
        if not line.startswith("\t"):
            target = line.partition(":")[0]
        elif "pytest" in (words := shlex.split(line))[0] and "not slow" not in words:
            ignored = tuple(word.removeprefix("--ignore=") for word in words if word.startswith("--ignore="))
            yield SlowRun(target, tuple(word for word in words if word.startswith("tests/")), ignored)


def slow_files() -> list[str]:
    mark = "mark." + "slow"  # in two, or this file would count
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(path.relative_to(ROOT)) for path in files if mark in path.read_text()]


def test_every_slow_proof_has_a_target() -> None:
    runs = list(slow_runs((ROOT / "Makefile").read_text()))
    lost = [file for file in slow_files() if not any(run.runs(file) for run in runs)]
    assert not lost, f"no make target runs the slow proofs of {', '.join(lost)}"
    assert {"test-full", "test-statistics", "test-docs", "test-soak"} <= {run.target for run in runs}


def test_a_file_that_a_target_leaves_out_is_not_its() -> None:
    text = "test-a: setup  ## one\n\t$(RUN)pytest -m slow tests/a \\\n\t\ttests/b.py --ignore=tests/a/c\n"
    text += "test: setup\n\t$(RUN)pytest -m 'not slow' tests/d\n"
    (run,) = slow_runs(text)
    assert run.target == "test-a"
    assert [run.runs(file) for file in ("tests/a/x.py", "tests/b.py")] == [True, True]
    assert [run.runs(file) for file in ("tests/a/c/x.py", "tests/d/x.py")] == [False, False]
