"""A document followed to the letter: its files written, its commands run, and what they print compared."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.docs.documents import FENCE, ROOT

_FILE = re.compile(r"`([\w./-]+\.(?:yaml|py|csv))`")


@dataclass(frozen=True)
class Block:
    """Fenced block: its language, and the file that the line before it names last."""

    kind: str
    file: Path
    text: str


@dataclass(frozen=True)
class Followed:
    """What came of a document's commands."""

    status: int
    """Exit status of the last one."""
    compared: int
    """Number of outputs that were as the document shows them."""
    printed: str


def blocks(document: Path) -> Iterator[Block]:
    """Yield the blocks of a document."""
    text, file = document.read_text(), Path()
    for match in FENCE.finditer(text):
        names = _FILE.findall(text[: match.start()].rstrip().rpartition("\n")[2])
        file = Path(names[-1]) if names else file
        yield Block(match[1], file, match[2])


def follow(document: Path, folder: Path) -> Followed:
    """Do in a folder what the document says."""
    done, compared = Followed(0, 0, ""), 0
    for block in blocks(document):
        match block.kind:
            case "python" | "yaml" | "csv":
                (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
                (folder / block.file).write_text(block.text)
            case "diff":
                _correct(folder / block.file, block.text)
            case "sh":
                for line in block.text.replace("\\\n", " ").splitlines():
                    if line.startswith("cd "):
                        folder /= line.removeprefix("cd ")
                    else:
                        done = run(line, folder)
            case "":
                assert_in_order(block.text, done.printed)
                compared += 1
    return Followed(done.status, compared, done.printed)


def run(command: str, folder: Path) -> Followed:
    """Return what the command prints, its lines joined: a terminal breaks them where it likes."""
    name, *arguments = shlex.split(command)
    program = {"harness": ["-m", "harness.cli"], "python": []}[name]
    done = subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return Followed(done.returncode, 0, " ".join(done.stdout.split()))


def assert_in_order(expected: str, printed: str) -> None:
    """Assert that each line but `...` was printed, in this order."""
    for line in expected.splitlines():
        if line not in ("", "..."):
            wanted = " ".join(line.split())
            assert wanted in printed
            printed = printed.partition(wanted)[2]


def _correct(file: Path, change: str) -> None:
    lines = {line[0]: line[1:] for line in change.splitlines()}
    before = file.read_text()
    assert before.count(lines["-"]) == 1
    file.write_text(before.replace(lines["-"], lines["+"]))
