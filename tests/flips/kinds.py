"""Kinds of files, and the bit that is flipped in one of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.flips.masters import FRESH, HALF, IMAGES, NULL, PAIR, STARTED, Master

_RUN = ("*/*/seed*",)
_BRANCH = ("*/*/seed*/branch*",)
_STATE = ("checkpoints/*/*", "checkpoints/*/state/**/*")


@dataclass(frozen=True)
class FileKind:
    """Files of one kind in a master's sweep, by glob patterns from the sweep."""

    name: str
    master: Master
    patterns: tuple[str, ...]
    made_again: bool = True
    """The sweep command makes the file again. False for what only a person reads, and for a history."""
    replayed: bool = False
    """`verify` reads the file."""
    also_called: tuple[str, ...] = ()
    """Other words for the file in sentences."""
    commands: tuple[str, ...] = ()
    """Of a file of the cache: the commands that read it."""

    def home(self, folder: Path) -> Path:
        """Folder that the patterns start from."""
        return folder / "cache" if self.commands else self.master.sweep(folder).path

    def files(self, home: Path) -> list[Path]:
        """Return the files of the kind; of the cache's only those that its commands used."""
        found = {path for pattern in self.patterns for path in home.glob(pattern) if path.is_file()}
        since = (home.parent / STARTED).stat().st_mtime if self.commands else 0.0
        used = {path for path in found if path.stat().st_mtime >= since} or found
        return sorted(path for path in used if path.stat().st_size)


def _of_runs(name: str, *files: str, master: Master = PAIR, made_again: bool = True, replayed: bool = True):
    """The same files of runs and of branches, as two kinds."""
    places = (("run", _RUN), ("branch", _BRANCH))
    return [
        FileKind(
            f"{place}: {name}", master, tuple(f"{at}/{file}" for at in where for file in files),
            made_again, replayed,
        )
        for place, where in places
    ]  # fmt: skip


KINDS: tuple[FileKind, ...] = (
    FileKind("sweep: rule", PAIR, ("rule.json",)),
    FileKind("sweep: ledger", PAIR, ("sweep.json",), made_again=False, also_called=("ledger",)),
    FileKind("sweep: timing", PAIR, ("timing.json",)),
    FileKind("sweep: comparison", PAIR, ("comparison.json",)),
    FileKind("sweep: command", PAIR, (".hydra/multirun.yaml",)),
    FileKind("sweep: A/A library", NULL, ("aa_library.json",)),
    FileKind("tuning: learning rates", PAIR, ("tune/learning_rates.json",)),
    FileKind("tuning: rule", PAIR, ("tune/rule.json",), made_again=False),
    FileKind("tuning: ledger", PAIR, ("tune/sweep.json",), made_again=False, also_called=("ledger",)),
    FileKind(
        "tuning: its runs",
        PAIR,
        tuple(f"tune/*/*/seed*/{file}" for file in ("*.json", "*.yaml", "metrics/*", *_STATE)),
        made_again=False,
    ),
    *_of_runs("config", "config.yaml"),
    *_of_runs("provenance", "run.json"),
    *_of_runs("status", "status.json", replayed=False),
    *_of_runs("examples", "examples.json", replayed=False),
    *_of_runs("curve of steps", "metrics/steps-*"),
    *_of_runs("evaluations", "metrics/evals-*"),
    *_of_runs("manifest", "checkpoints/*.manifest.json"),
    *_of_runs("checkpoint", *_STATE),
    FileKind("image run: samples", IMAGES, ("*/*/seed*/samples.json",)),
    FileKind("image run: sample grid", IMAGES, ("*/*/seed*/samples.png",)),
    FileKind("unfinished: target", HALF, ("*/*/seed*/goal.json",)),
    FileKind("unfinished: checkpoint", HALF, tuple(f"*/*/seed*/{each}" for each in _STATE)),
    FileKind("unfinished: curves", HALF, ("*/*/seed*/metrics/*",)),
    FileKind("unfinished: records", HALF, ("*/*/seed*/*.json", "*/*/seed*/config.yaml")),
    FileKind("to read: logs", PAIR, ("workers/*.log", "*/*/seed*/log.txt"), made_again=False),
    FileKind("run: timeline", PAIR, ("*/*/seed*/timeline.jsonl",), made_again=False),
    FileKind("to read: page", PAIR, ("report.html",), made_again=False),
    FileKind("to read: profile", IMAGES, ("*/*/seed*/profile/**/*",), made_again=False),
    FileKind("locks", PAIR, ("driver.lock", "*/*/seed*/worker.lock"), made_again=False),
)


def _of_cache(name: str, *patterns: str, commands: tuple[str, ...] = ("sweep",), made_again: bool = True):
    called = ("cache/",) if name == "key" else (f"cache/{name}", f"the cache's {name}")
    return FileKind(f"cache: {name}", FRESH, patterns, made_again, also_called=called, commands=commands)


CACHE_KINDS: tuple[FileKind, ...] = (
    _of_cache("key", "key", made_again=False),
    _of_cache("programs", "programs/*-*"),
    _of_cache("traces", "traces/*-*"),
    _of_cache("described", "described/*"),
    _of_cache("checkpoints", "checkpoints/*"),
    _of_cache("tokens", "tokens/*/*.bin", "tokens/*/train.starts"),
    _of_cache("surveys", "surveys/*", "tokens/files/*", "tokens/survey/*"),
    _of_cache("report", "report/*"),
    _of_cache("layers", "layers/*", commands=("plan",)),
    _of_cache("cost", "cost/*", commands=("plan",), made_again=False),
    _of_cache("calibration", "calibration/*", commands=("plan",), made_again=False),
    _of_cache("remote", "remote/*/**/*", commands=("compare",)),
)


@dataclass(frozen=True)
class Flip:
    """One bit of one file."""

    kind: FileKind
    file: str
    """Path from the sweep, or from the cache."""
    place: int
    bit: int

    def __str__(self) -> str:
        return f"{self.file}, bit {self.bit} of byte {self.place}"

    def strike(self, home: Path) -> bytes:
        """Flip the bit, and return what the file holds now."""
        path = home / self.file
        content = bytearray(path.read_bytes())
        content[self.place] ^= 1 << self.bit
        path.write_bytes(content)
        return bytes(content)

    def is_gone(self, home: Path, struck: bytes) -> bool:
        """Whether the file was written again or removed; what was appended to it does not count."""
        path = home / self.file
        return not path.exists() or not path.read_bytes().startswith(struck[: self.place + 1])


def draw_flips(folder: Path, kinds: Sequence[FileKind], count: int, chance: random.Random) -> list[Flip]:
    """Draw flips over the kinds in turn: a file of the kind, a byte of it, a bit."""
    flips = []
    for number in range(count):
        kind = kinds[number % len(kinds)]
        home = kind.home(folder)
        path = chance.choice(kind.files(home))
        place = chance.randrange(path.stat().st_size)
        flips.append(Flip(kind, path.relative_to(home).as_posix(), place, chance.randrange(8)))
    return flips
