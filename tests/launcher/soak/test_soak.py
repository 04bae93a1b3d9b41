"""A sweep under random faults ends as if nothing had happened to it.

In full, on real training: `make test-soak`. `SOAK_SEED` repeats its faults, `SOAK_FAULTS` says how many.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import os
import random
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from harness.records.paths import SweepDir
from harness.records.run.status import read_status
from tests.launcher.soak.disk import Disk
from tests.launcher.soak.faults import DAMAGE, KINDS, WORKER, Fault, decks, flip_bit
from tests.launcher.soak.site import Site, wait_until
from tests.launcher.soak.whole import assert_as, verdict
from tests.launcher.support import configs, train

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
PACED = ["env", "FAKE_PACE=0.1"]
"""Seconds a step, of 20."""
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


def test_one_fault_of_each_kind_leaves_no_trace(tmp_path, sites):
    """The short form, on workers that train nothing: a real one takes seconds to begin again."""
    train(configs(tmp_path / "calm", seeds=(0,)))
    settings = {"seeds": [0], "stall_seconds": 1.5, "attempts": 10, "backoff_seconds": 0.05}
    command = [*PACED, sys.executable, "-m", "tests.launcher.support", "runs", json.dumps(settings)]
    site = make_site(tmp_path / "soak", command, "runs/trial")
    sites.append(site)
    chance = random.Random(SEED)
    found = [*soak(site, chance, chance.sample([*KINDS], len(KINDS)), 0.3)]
    assert {*found} == {*KINDS}
    settle(site, SweepDir(tmp_path / "calm" / "trial"))


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
    for fault in itertools.islice(soak(site, chance, decks(chance), 2.0), FAULTS):
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


def soak(site: Site, chance: random.Random, cards: Iterable[Fault], pause: float) -> Iterator[Fault]:
    """Yields each fault that hit. `pause`: seconds between two, at most.

    Where a fault finds nothing to hit, since every run is finished, some file is damaged first.
    """
    hits, begun = itertools.count(1), time.monotonic()
    for card in cards:
        hit = None
        while hit is not card:
            hit, said = card, strike(site, card, chance, pause)
            if said is None:
                hit, said = flip_bit, strike(site, flip_bit, chance, pause)
            if said is not None:
                at = f"{next(hits):4} {time.monotonic() - begun:5.0f} s"
                print(f"{at}  {hit.__name__:13} {said}  [{_states(site)}]", flush=True)
                yield hit


def strike(site: Site, fault: Fault, chance: random.Random, pause: float) -> str | None:
    """The fault at a random moment: for damage also between two commands, for workers while one is there."""
    if not site.driving() and not (fault in DAMAGE and chance.random() < 0.5):
        site.start()
    if fault in WORKER:
        wait_until(lambda: bool(site.workers()) or not site.driving(), 30)
    if chance.random() < 0.7:
        wait_until(lambda: site.training() or not site.driving(), 30)
    time.sleep(chance.uniform(0.0, pause))
    with contextlib.suppress(FileNotFoundError):  # a checkpoint that was chosen made room for the next
        return fault(site, chance)
    return None


def _states(site: Site) -> str:
    return " ".join(f"{read_status(run).state.value}@{read_status(run).step}" for run in site.runs())
