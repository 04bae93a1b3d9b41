"""Writes the key lists, the recipes of the sizes and the list of files again: `python -m tests.golden.make`.

The stored sweep (sweep.tar.gz) and what it gave (expected.json) are not made again. They are frozen on
purpose: they stand for what users have on disk. frozen_sweep.sh shows how the sweep was made. What is decided
in expected.json was brought to the verdict's two answers by later code; the losses, differences and k in it
are still those that the code of the sweep computed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.golden.support import (
    HERE,
    PLANS,
    SWEEP,
    compared,
    file_names,
    harness,
    key_paths,
    one_seed,
    plan_cache,
    recipes,
    said_json,
    unpack,
)  # fmt: skip


def main() -> None:
    """Write every list."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for plan, arguments in PLANS.items():
            done = harness("plan", *arguments, "--json", cwd=folder, cache=plan_cache())
            write(plan, {*key_paths(said_json(done))})
        for size, text in recipes(folder).items():
            (HERE / f"size_{size}.yaml").write_text(text)
        write("compare", {*key_paths(compared(unpack(folder / "stored")))})
        fresh = folder / "fresh"
        fresh.mkdir()
        done = harness("sweep", *one_seed(), cwd=fresh)
        assert done.returncode == 0, done.stderr
        write("files", file_names(fresh / SWEEP))


def write(name: str, lines: set[str]) -> None:
    """Write one list, sorted."""
    (HERE / f"{name}.txt").write_text("".join(f"{line}\n" for line in sorted(lines)))


if __name__ == "__main__":
    main()
