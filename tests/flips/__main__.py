"""`python -m tests.flips [FOLDER]`: flip, judge, print each flip and the table. FOLDER keeps the sweeps.

`FLIPS` says how many bits (200), `FLIPS_SEED` which ones (1).
"""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.flips.cache_flips import judge_cache, observe_cache
from tests.flips.judging import Outcome, judge, observe_calm
from tests.flips.kinds import CACHE_KINDS, KINDS, draw_flips
from tests.flips.masters import MASTERS, train_masters
from tests.flips.table import table

COUNT = int(os.environ.get("FLIPS", "200"))
SEED = int(os.environ.get("FLIPS_SEED", "1"))
WORKERS = 2


def main(folder: Path) -> int:
    """Return 1 if any flip changed a number without a word, broke a command, or was not made good."""
    os.environ["AB_HARNESS_CACHE"] = str(folder / "cache")
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    train_masters(folder)
    flips = draw_flips(folder, (*KINDS, *CACHE_KINDS), COUNT, random.Random(SEED))
    outcomes: list[Outcome] = []
    pool = ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn"))
    try:
        calm_cache = pool.submit(observe_cache, folder)
        calm = dict(zip(MASTERS, pool.map(observe_calm, [folder] * len(MASTERS), MASTERS), strict=True))
        waiting = [
            pool.submit(judge_cache, folder, flip, calm_cache.result())
            if flip.kind.commands
            else pool.submit(judge, folder, flip, calm[flip.kind.master])
            for flip in flips
        ]
        print(f"{COUNT} flips, FLIPS_SEED={SEED}; trained after {time.monotonic() - begun:.0f} s", flush=True)
        for number, future in enumerate(waiting, start=1):
            outcomes.append(future.result())
            _show(number, outcomes[-1], time.monotonic() - begun)
    finally:
        pool.shutdown(cancel_futures=True)
    print(f"\n{table(outcomes)}\n")
    print(f"{time.monotonic() - begun:.0f} s")
    return int(any(outcome.faults for outcome in outcomes))


def _show(number: int, outcome: Outcome, seconds: float) -> None:
    words = ["told"] * bool(outcome.told) + ["healed"] * outcome.healed + ["FAULT"] * bool(outcome.faults)
    print(f"{number:4} {seconds:5.0f} s  {outcome.flip.kind.name}: {outcome.flip}  [{', '.join(words)}]")
    for line in outcome.faults:
        print(f"       {line}")
    sys.stdout.flush()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(Path(sys.argv[1]).absolute()))
    with tempfile.TemporaryDirectory(prefix="flips-") as name:
        sys.exit(main(Path(name)))
