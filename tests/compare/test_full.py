"""The acceptance table in full: `make test-statistics`. Writes what was achieved to docs/statistics.md."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.compare import fit_scaling_law
from tests.compare import real, simulate, simulate_timing, validation

pytestmark = pytest.mark.slow
REPORT = Path(__file__).parents[2] / "docs" / "statistics.md"
REPS = 5_000
ROWS: list[tuple[str, str, str, str]] = []


@dataclass(frozen=True)
class Row:
    name: str
    limit: str
    run: Callable[[], Any]
    holds: Callable[[Any], bool]


def inside(low: float, high: float) -> Callable[[Any], bool]:
    return lambda rate: low <= rate.value <= high


def at_most(limit: float) -> Callable[[Any], bool]:
    return lambda rate: rate.within(limit)


def each_inside(low: float, high: float) -> Callable[[Any], bool]:
    return lambda rates: all(low <= rate.value <= high for rate in rates)


def pooled_holds(found: simulate.PooledResult) -> bool:
    return abs(found.bias) <= 0.001 and found.rmse <= 0.007 and 0.94 <= found.coverage.value <= 0.97


TABLE = [
    *[
        Row(
            f"coverage of one scale's interval, n = {n}", ".935 to .965",
            lambda n=n: simulate.coverage(REPS, n), inside(0.935, 0.965),
        )
        for n in (3, 5, 8)
    ],
    Row("the same, n = 3 with an A/A library", ".935 to .965",
        lambda: simulate.coverage(REPS, 3, orders=6), inside(0.935, 0.965)),
    Row("false positives at the end, n = 5", "<= .05", lambda: simulate.power(REPS, 5, 1.0), at_most(0.05)),
    Row("false positives at any of 5 looks", "<= .05", lambda: simulate.any_look(REPS, 5), at_most(0.05)),
    Row("false positives at any of 31 looks", "<= .05", lambda: simulate.any_look(4000, 31), at_most(0.05)),
    Row("(31 looks at .05 each, for contrast)", "> .05",
        lambda: simulate.any_look(2000, 31, naive=True), lambda rate: rate.value > 0.05),
    Row("(band over the steps of one pair, for contrast)", "> .5",
        lambda: simulate.one_pair_of_steps(2000), lambda rate: rate.value > 0.5),
    *[
        Row(
            f"a scale that may stop at 4 looks, n = {n}: called different; its interval holds zero",
            "<= .05; >= .95", lambda n=n: simulate.stopped_null(REPS, n),
            lambda found: found.false_positives.within(0.05) and found.intervals.value >= 0.94,
        )
        for n in (3, 5)
    ],
    Row("any Holm-adjusted p < .05, 2 treatments at 3 scales that may stop", "<= .05",
        lambda: simulate.stopped_family(2000), at_most(0.05)),
    Row("e-process up to 30 seeds", "<= .05", lambda: simulate.e_process(100_000), at_most(0.05)),
    Row("power, n = 5, k = 1.01, matched batches", ">= .70",
        lambda: simulate.power(REPS, 5, 1.01), lambda rate: rate.value >= 0.70),
    Row("power, n = 5, k = 1.01, unmatched", "<= .30",
        lambda: simulate.power(REPS, 5, 1.01, matched=False), lambda rate: rate.value <= 0.30),
    Row("ln k over 4 scales, n = 3, k_tokens, k = 1.05", "bias <= .001, RMSE <= .007, coverage .94 to .97",
        lambda: simulate.pooled(REPS), pooled_holds),
    Row("the same, k = 1.01", "bias <= .001, RMSE <= .007, coverage .94 to .97",
        lambda: simulate.pooled(REPS, 1.01), pooled_holds),
    Row("the same along the ladder, k_compute, k = 1.05", "bias <= .001, RMSE <= .007, coverage >= .94",
        lambda: simulate.pooled_compute(3000),
        lambda f: abs(f.bias) <= 0.001 and f.rmse <= 0.007 and f.coverage.value >= 0.94),
    Row("trend, size, n = 5", "<= .06", lambda: simulate.trends(REPS, 0.0), at_most(0.06)),
    Row("trend, power at +.03 an e-fold", ">= .95",
        lambda: simulate.trends(2000, 0.03), lambda rate: rate.value >= 0.95),
    Row("trend, power at -.03 an e-fold", ">= .95",
        lambda: simulate.trends(2000, -0.03), lambda rate: rate.value >= 0.95),
    *[
        Row(
            f"A/B noise {noise} times the A/A noise: pooled coverage", ">= .93",
            lambda noise=noise: simulate.pooled(5000, library=6, noise=noise).coverage,
            lambda rate: rate.value >= 0.93,
        )
        for noise in (1.5, 2.0, 3.0)
    ],
    Row("any Holm-adjusted p < .05 over 4 null scales", "<= .05",
        lambda: simulate.family_wise(REPS), at_most(0.05)),
    Row("Chinchilla points", "objective <= .00101828, converged",
        lambda: fit_scaling_law(*validation.chinchilla()),
        lambda s: s.converged and s.objective <= 0.00101828),
    *[
        Row(
            f"the same by scipy's {method} as it comes", "detected as not converged",
            lambda m=method: fit_scaling_law(
                *validation.chinchilla(), minimize=validation.default_optimizer(m)
            ),
            lambda s: not s.converged,
        )
        for method in ("L-BFGS-B", "BFGS")
    ],
    *[
        Row(
            f"ln s, n = {n}, {quads} quads, SD of a visit 1 %; 3 %", ".94 to .97",
            lambda n=n, quads=quads: tuple(
                simulate_timing.speed_up_coverage(4 * REPS, n, quads, sd) for sd in (0.01, 0.03)
            ),
            each_inside(0.94, 0.97),
        )
        for n in (2, 3, 5)
        for quads in (4, 8)
    ],
    *[
        Row(
            f"ratio of step times, {name}, SD of a visit 1 %: 4 quads; 8 quads", ">= .93",
            lambda draw=draw: tuple(simulate_timing.ratio_coverage(REPS, draw(0.01), q) for q in (4, 8)),
            each_inside(0.93, 1.0),
        )
        for name, draw in (
            ("drift of 5 % a quad", simulate_timing.drifting),
            ("AR(1) of .8", simulate_timing.autoregressive),
            ("t with 3 df", simulate_timing.heavy),
            ("one change of clock by 8 %", simulate_timing.clock_change),
        )
    ],
    *[
        Row(
            f"the same, quads doubled until the half width is .01, SD of a visit {100 * sd:g} %", ">= .91",
            lambda sd=sd: simulate_timing.grown_coverage(REPS, simulate_timing.white(sd))[0],
            inside(0.91, 1.0),
        )
        for sd in (0.005, 0.01, 0.015, 0.02, 0.03)
    ],
    Row("real A/A logs, at the end; at any of 5 looks", "<= .08; <= .05",
        lambda: real.false_positives(5000), lambda pair: pair[0].within(0.08) and pair[1].within(0.05)),
]  # fmt: skip


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_row(row: Row):
    found = row.run()
    ROWS.append((row.name, row.limit, shown(found), "yes" if row.holds(found) else "NO"))
    assert row.holds(found), shown(found)


def test_time_a_run_is_flat_and_memory_bounded(tmp_path):
    """A hundred and a thousand runs of 10,000 evaluations, each in a process of its own."""
    small, large = (
        json.loads(
            subprocess.run(
                [sys.executable, "-m", "tests.bench.comparison", str(tmp_path), str(runs)],
                cwd=REPORT.parents[1], stdout=subprocess.PIPE, text=True, check=True,
            ).stdout
        )
        for runs in (100, 1000)
    )  # fmt: skip
    assert min(large["seconds"]) / min(small["seconds"]) < 10 * 1.6
    assert large["mib"] < 1024


def test_write_the_report():
    """Last: what the rows above achieved."""
    head = REPORT.read_text().split("<!-- achieved -->")[0] if REPORT.exists() else "# Statistics\n\n"
    lines = ["| test | must hold | achieved | holds |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in ROWS]
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(head + "<!-- achieved -->\n" + "\n".join(lines) + "\n")
    assert len(ROWS) >= len(TABLE) - 2


def shown(found: Any) -> str:
    if isinstance(found, tuple):
        return "; ".join(map(shown, found))
    if isinstance(found, simulate.Stopped):
        return f"{found.false_positives}; {found.intervals}"
    if isinstance(found, simulate.PooledResult):
        return f"bias {found.bias:+.5f}, RMSE {found.rmse:.5f}, coverage {found.coverage}"
    if hasattr(found, "objective"):
        state = "converged" if found.converged else "NOT converged"
        return (
            f"{state}, {found.objective:.10f}: E {found.E:.5f}, A {found.A:.2f}, B {found.B:.2f}, "
            f"alpha {found.alpha:.5f}, beta {found.beta:.5f}, {found.agreeing} of {found.starts} starts agree"
        )
    return str(found)
