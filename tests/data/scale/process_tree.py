"""A process with all that it has started: their memory, what they read from the disk, and their end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.data.scale.made_files import ROOT

INTERVAL = 0.1


@dataclass
class Usage:
    """Resources of a process and its children, sampled several times a second."""

    peak_bytes: int = 0
    """Largest sum of their proportional shares of memory (PSS), pages of files not counted."""
    read_bytes: int = 0
    """Bytes that the disk gave to them. What a child read is its parent's once it has ended."""

    def sample(self, root: int) -> None:
        """Take the present state into account."""
        memory = read = 0
        for pid in tree(root):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                fields = _fields(Path(f"/proc/{pid}/smaps_rollup"))
                memory += 1024 * (fields.get("Pss_Anon", 0) + fields.get("Pss_Shmem", 0))
                read += _fields(Path(f"/proc/{pid}/io")).get("read_bytes", 0)
        self.peak_bytes, self.read_bytes = max(self.peak_bytes, memory), max(self.read_bytes, read)


def _fields(path: Path) -> dict[str, int]:
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


def tree(root: int) -> list[int]:
    """Return a process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def start(module: str, arguments: Sequence[object]) -> subprocess.Popen[str]:
    """Start a module of this room in a process group of its own."""
    command = [sys.executable, "-m", f"tests.data.scale.{module}", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)


def watch(process: subprocess.Popen[str]) -> tuple[dict[str, Any], Usage]:
    """Wait for a process. Return the JSON that it prints last, and what it used."""
    usage = Usage()
    while process.poll() is None:
        usage.sample(process.pid)
        time.sleep(INTERVAL)
    return result_of(process), usage


def result_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a process whose speed is measured, which samples of its memory would slow down. Return the
    JSON that it prints last."""
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    return json.loads(printed.splitlines()[-1])


def kill_group(process: subprocess.Popen[str]) -> None:
    """Kill a process and its children at once, as the loss of a machine does."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
