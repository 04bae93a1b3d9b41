"""A sweep under random faults ends as if nothing had happened to it.

In full, on real training: `make test-soak`. `SOAK_SEED` repeats its faults, `SOAK_FAULTS` says how many.
"""

from __future__ import annotations

import collections
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.records.layout import SweepDir
from harness.records.status import read_status
from tests.fleet.soak.disk import Disk
from tests.fleet.soak.faults import DAMAGE, WORKER, Fault, deck, flip_bit
from tests.fleet.soak.site import Site, wait_until
from tests.fleet.soak.whole import assert_as, verdict

FAULTS = int(os.environ.get("SOAK_FAULTS", "200"))
SEED = int(os.environ.get("SOAK_SEED", "1"))
CHECK = 25
"""After so many faults the sweep is let finish and is compared, so that a trace is seen near its cause."""
PATIENCE = 600.0
COMMAND = [
    *(sys.executable, "-m", "harness.cli", "sweep", "variant=mha,short", "seed=0", "scale=xs,s"),
    *("data.sequence_length=32", "evaluation.tokens=1024", "evaluation.points=4", "checkpoint.every=20"),
    *("schedule=looks", "schedule.branches=[0.5]", "rule.stopping=looks"),
]
HASTE = ["engine.backoff_seconds=0.1", "engine.attempts=10", "engine.stall_seconds=8"]


@pytest.fixture
def sites(tmp_path) -> Iterator[list[Site]]:
    made: list[Site] = []
    yield made
    for site in made:
        site.end()
        site.disk.close()


def make_site(folder: Path, command: list[str], sweep: str) -> Site:
    folder.mkdir()
    disk = Disk(folder / "disk", folder / "full")
    return Site(command, SweepDir(disk.folder / sweep), disk, folder)


@pytest.mark.slow
def test_faults_leave_no_trace(tmp_path, sites):
    calm = make_site(tmp_path / "calm", COMMAND, "runs/adhoc")
    site = make_site(tmp_path / "soak", [*COMMAND, *HASTE], "runs/adhoc")
    sites += [calm, site]
    calm.finish(PATIENCE)
    wanted = verdict(calm.sweep)
    chance = random.Random(SEED)
    print(f"\n{FAULTS} faults, SOAK_SEED={SEED}")
    counts: collections.Counter[str] = collections.Counter()
    for fault in soak(site, chance, FAULTS, 2.0):
        counts[fault.__name__] += 1
        if counts.total() % CHECK == 0 or counts.total() == FAULTS:
            settle(site, calm.sweep)
            assert verdict(site.sweep) == wanted
    print(", ".join(f"{name} {count}" for name, count in sorted(counts.items())))


def settle(site: Site, calm: SweepDir) -> None:
    begun = time.monotonic()
    site.finish(PATIENCE)
    assert_as(calm, site.sweep)
    assert wait_until(lambda: not site.processes(), 10), f"left running: {site.processes()}"
    print(f"    whole after {time.monotonic() - begun:.0f} s", flush=True)


def soak(site: Site, chance: random.Random, faults: int, pause: float) -> Iterator[Fault]:
    """Yields each fault that hit, until there were as many. `pause`: seconds between two, at most."""
    cards: list[Fault] = []
    hits, begun = 0, time.monotonic()
    while hits < faults:
        cards = cards or deck(chance)
        fault = cards.pop()
        said = strike(site, fault, chance, pause)
        if said is None:  # everything is finished: something must be damaged, so that a run goes on
            cards.append(fault)
            fault = flip_bit
            said = strike(site, fault, chance, pause)
        if said is not None:
            hits += 1
            at = time.monotonic() - begun
            print(f"{hits:4} {at:5.0f} s  {fault.__name__:13} {said}  [{_states(site)}]", flush=True)
            yield fault


def strike(site: Site, fault: Fault, chance: random.Random, pause: float) -> str | None:
    """The fault at a random moment: for damage also between two commands, for workers while one is there."""
    if not site.driving() and not (fault in DAMAGE and chance.random() < 0.5):
        site.start()
    if fault in WORKER:
        wait_until(lambda: bool(site.workers()) or not site.driving(), 30)
    if chance.random() < 0.7:
        wait_until(lambda: site.training() or not site.driving(), 30)
    time.sleep(chance.uniform(0.0, pause))
    return fault(site, chance)


def _states(site: Site) -> str:
    return " ".join(f"{read_status(run).state.value}@{read_status(run).step}" for run in site.runs())
