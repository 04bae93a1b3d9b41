"""docs/new_variant.md and what the README shows of a plan, followed to the letter in an empty folder."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "new_variant.md"
README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Block:
    kind: str
    file: Path
    """What the text before it names last."""
    text: str


def blocks() -> Iterator[Block]:
    text, file = GUIDE.read_text(), Path()
    end = 0
    for found in BLOCK.finditer(text):
        named = re.findall(r"(?:file is|In) `([\w/.]+)`:", text[end : found.start()])
        file, end = Path(named[-1]) if named else file, found.end()
        yield Block(found[1], file, found[2])


def run(command: str, folder: Path) -> str:
    """What the command prints, its lines joined: a terminal breaks them where it likes."""
    name, *arguments = shlex.split(command)
    assert name == "harness"
    source = str(GUIDE.parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", *arguments],
        cwd=folder, env=os.environ | {"PYTHONPATH": source},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return " ".join(done.stdout.split())


def assert_in_order(expected: str, printed: str) -> None:
    for line in expected.splitlines():
        if line not in ("", "..."):
            wanted = " ".join(line.split())
            assert wanted in printed
            printed = printed.partition(wanted)[2]


def correct(file: Path, change: str) -> None:
    lines = {line[0]: line[1:] for line in change.splitlines()}
    before = file.read_text()
    assert before.count(lines["-"]) == 1
    file.write_text(before.replace(lines["-"], lines["+"]))


@pytest.mark.slow
def test_the_guide_does_what_it_says(tmp_path):
    """Two sweeps that train. Quick tests of test_printed.py choose its files and read its commands."""
    printed, told = "", 0
    for block in blocks():
        match block.kind:
            case "python" | "yaml":
                (tmp_path / block.file).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / block.file).write_text(block.text)
            case "diff":
                correct(tmp_path / block.file, block.text)
            case "sh":
                printed = run(block.text, tmp_path)
            case "":
                assert_in_order(block.text, printed)
                told += 1
    assert told == 2
    assert (tmp_path / "runs/retention/report.html").exists()


def test_the_readme_shows_what_a_plan_prints(tmp_path):
    shown = next(text for _, text in BLOCK.findall(README.read_text()) if text.startswith("$ harness plan"))
    command, _, expected = shown.removeprefix("$ ").partition("\n")
    assert_in_order(expected, run(command, tmp_path))
