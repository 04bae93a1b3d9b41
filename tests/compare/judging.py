"""Small sweeps, judged: what the tests of verdicts share."""

from __future__ import annotations

from pathlib import Path

from harness.compare import compare
from harness.compare.results.comparison import Comparison
from harness.compare.results.verdict_types import Rung
from tests.compare.synthetic import Draft, Recipe, write_sweep

SMALL = Recipe(scales={"xs": 10**7, "s": 3 * 10**7}, with_steps=False)

ONE = Recipe(scales={"xs": 10**7}, with_steps=False)


def judged(tmp_path: Path, recipe: Recipe = ONE, edit=None) -> Comparison:
    return compare(write_sweep(tmp_path / "sweep", recipe, edit))


def is_treatment(draft: Draft, seed: int | None = None) -> bool:
    return draft.variant == "hybrid" and seed in (None, draft.seed)


def only(comparison: Comparison) -> Rung:
    (rung,) = comparison.rungs
    return rung
