"""What can go wrong, each as a function that does it and says in words what it did.

None where it found nothing to hit: then nothing happened, and it is not counted.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.records.paths import RunDir
from harness.records.run.checkpoint_manifest import manifest_steps
from tests.launcher.soak.site import Site

Fault = Callable[[Site, random.Random], str | None]
DAY = 86400.0


def kill_driver(site: Site, chance: random.Random) -> str | None:
    return _signal(site, _driver(site), signal.SIGKILL, chance)


def term_driver(site: Site, chance: random.Random) -> str | None:
    return _signal(site, _driver(site), signal.SIGTERM, chance)


def kill_worker(site: Site, chance: random.Random) -> str | None:
    return _signal(site, site.workers(), signal.SIGKILL, chance)


def term_worker(site: Site, chance: random.Random) -> str | None:
    return _signal(site, site.workers(), signal.SIGTERM, chance)


def usr2_worker(site: Site, chance: random.Random) -> str | None:
    return _signal(site, site.workers(), signal.SIGUSR2, chance)


def hang_worker(site: Site, chance: random.Random) -> str | None:
    """It stands still until the watchdog ends it, or a later fault does."""
    return _signal(site, site.workers(), signal.SIGSTOP, chance)


def kill_server(site: Site, chance: random.Random) -> str | None:
    return _signal(site, site.servers(), signal.SIGKILL, chance)


def fill_disk(site: Site, chance: random.Random) -> str | None:
    if not site.driving():
        return None
    seconds = chance.uniform(0.3, 3.0)
    site.disk.fill()
    time.sleep(seconds)
    site.disk.free()
    return f"for {seconds:.1f} s"


def flip_bit(site: Site, chance: random.Random) -> str | None:
    path = _file(site, chance)
    if path is None or not (size := _size(path)):
        return None
    place, bit = chance.randrange(size), chance.randrange(8)
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))
    return f"{path.relative_to(site.sweep.path)}, bit {bit} of byte {place} of {size}"


def truncate_file(site: Site, chance: random.Random) -> str | None:
    path = _file(site, chance)
    if path is None or not (size := _size(path)):
        return None
    left = chance.randrange(size)
    os.truncate(path, left)
    return f"{path.relative_to(site.sweep.path)}, {left} of {size} bytes left"


def delete_file(site: Site, chance: random.Random) -> str | None:
    path = _file(site, chance)
    if path is None:
        return None
    path.unlink()
    return f"{path.relative_to(site.sweep.path)}"


def jump_clock(site: Site, chance: random.Random) -> str | None:
    """The wall clock of every process; or the times of files, as after such a jump."""
    seconds = chance.uniform(-DAY, DAY)
    if chance.random() < 0.5:
        site.clock.write_text(str(seconds))
        return f"by {seconds:+.0f} s" if site.driving() else None
    files = [path for path in site.sweep.path.rglob("*") if path.is_file()]
    for path in chance.sample(files, min(20, len(files))):
        _age(path, seconds)
    return f"of {min(20, len(files))} files by {seconds:+.0f} s" if files else None


KINDS: dict[Fault, int] = {
    kill_driver: 1,
    kill_worker: 1,
    kill_server: 1,
    term_driver: 1,
    term_worker: 1,
    usr2_worker: 1,
    hang_worker: 1,
    fill_disk: 1,
    flip_bit: 3,
    truncate_file: 2,
    delete_file: 2,
    jump_clock: 1,
}
"""How often each stands in a deck that is drawn from until it is empty."""
DAMAGE = (flip_bit, truncate_file, delete_file)
WORKER = (kill_worker, term_worker, usr2_worker, hang_worker, kill_server)


def decks(chance: random.Random) -> Iterator[Fault]:
    """Every kind as often as it is due, shuffled; and again, for ever."""
    cards = [fault for fault, count in KINDS.items() for _ in range(count)]
    while True:
        chance.shuffle(cards)
        yield from cards


def _driver(site: Site) -> list[int]:
    return [site.driver.pid] if site.driver is not None and site.driving() else []


def _signal(site: Site, pids: list[int], number: signal.Signals, chance: random.Random) -> str | None:
    pid = chance.choice(pids) if pids else None
    return f"process {pid}" if pid is not None and site.send(pid, number) else None


def _file(site: Site, chance: random.Random) -> Path | None:
    """One of the files that a sweep needs again: first a kind of file, then one of that kind.

    Not the ledger, whose damage stays in sight for ever, by design.
    """
    runs = [each for run in site.runs() for each in (run, *run.branches())]
    kinds = [found for find in _FILES if (found := [path for run in runs for path in find(run)])]
    kinds += [[site.sweep.rule]] if site.sweep.rule.exists() else []
    return chance.choice(chance.choice(kinds)) if kinds else None


def _checkpoints(run: RunDir) -> list[Path]:
    """Files below a checkpoint that is complete."""
    folders = [run.checkpoint(step) for step in manifest_steps(run)]
    return [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]


def _there(*paths: Path) -> list[Path]:
    return [path for path in paths if path.is_file()]


_FILES: tuple[Callable[[RunDir], list[Path]], ...] = (
    _checkpoints,
    lambda run: sorted(run.checkpoints.glob("*.manifest.json")),
    lambda run: sorted(run.metrics.glob("*.parquet")),
    lambda run: _there(run.status),
    lambda run: _there(run.run),
    lambda run: _there(run.config),
    lambda run: _there(run.timeline),
    lambda run: _there(run.training_target),
    lambda run: _there(run.path / "examples.json"),
)


def _size(path: Path) -> int:
    return path.stat().st_size


def _age(path: Path, seconds: float) -> None:
    if path.exists():
        then = path.stat().st_mtime + seconds
        os.utime(path, (then, then))
