"""Logs of other tools that tests read: what each logged, and how it is read."""

from __future__ import annotations

import math
from pathlib import Path

import polars as pl
import pytest

from harness.compare.inputs.importers.open_logs import LogReading, read_logs
from harness.core.errors import UserError

LOGS = Path(__file__).parent / "logs"


CURVES = Path(__file__).parents[3] / "shared" / "curves"


NAME = "{variant}_{scale}_seed{seed}"


RUNS = [(variant, seed) for variant in ("plain", "wide") for seed in (0, 1)]


STEPS = (10, 20, 30, 40)


def loss(variant: str, seed: int, step: int) -> float:
    """The loss that each tool logged: tests/compare/logs/README.md."""
    better = 0.01 * (variant == "wide")
    return 4 - 0.1 * math.log(step / 10) - better + 3e-4 * math.sin(9 * seed + len(variant))


def read(*paths, maps=(), name=None, keep=None, lines=None, **options):
    return read_logs(paths, LogReading.from_options(maps, name, keep, lines, **options))


def sentence(*paths, **options) -> str:
    with pytest.raises(UserError) as caught:
        read(*paths, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_all_runs(logs, digits: int = 6) -> None:
    """Every run has its four evaluations, with the tokens and the losses that were logged."""
    rows = logs.frame.sort("variant", "seed", "step").select(
        "variant", "scale", "seed", "step", "tokens", "loss"
    )
    expected = [(v, "s", seed, step, 100 * step) for v, seed in RUNS for step in STEPS]
    assert [row[:5] for row in rows.rows()] == expected
    losses = [loss(v, seed, step) for v, _, seed, step, _ in expected]
    assert rows["loss"].to_list() == pytest.approx(losses, abs=0.6 * 10**-digits)


def long_rows() -> pl.DataFrame:
    rows = [
        {"run": f"{v}_s_seed{seed}", "arm": v, "_step": step, "val/loss": loss(v, seed, step)}
        for v, seed in RUNS
        for step in STEPS
    ]
    return pl.DataFrame(rows)
