"""The acceptance table of the two answers, and of ladders that scatter, in full: `make test-statistics`.

Writes what was achieved to docs/statistics.md, above the table of `test_full`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.compare import simulate_answers as answers
from tests.compare import simulate_bets as simulate
from tests.compare import simulate_ladders as ladders
from tests.compare.simulate import Rate
from tests.compare.test_full import Row

pytestmark = pytest.mark.slow
REPORT = Path(__file__).parents[2] / "docs" / "statistics.md"
BEGIN, END = "<!-- achieved: the two answers -->\n", "<!-- end of the two answers -->\n"
REPS, FEW = 2_000, 500
ROWS: list[tuple[str, str, str, str]] = []
SEEDS = (2, 3, 5)
BELOW = [answers.random_line(0.02), answers.random_line(0.04), answers.scattered(0.02), simulate.walk(0.03)]
PATHS = [
    simulate.walk(0.03), simulate.walk(0.05), answers.heavy_walk(0.03), answers.random_line(0.04),
    answers.saturating(0.06), answers.scattered(0.02), answers.constant(0.0), answers.constant(0.05),
]  # fmt: skip


def all_within(limit: float) -> Callable[[Sequence[Rate]], bool]:
    return lambda rates: all(rate.within(limit) for rate in rates)


def all_from(low: float, high: float = 1.0) -> Callable[[Sequence[Rate]], bool]:
    return lambda rates: all(low <= rate.value <= high for rate in rates)


@cache
def wrong_bets() -> list[answers.BetShares]:
    """Every noise, path, number of scales (1 to 4) and of seeds (2, 3), in this order."""
    return [
        answers.bet_shares(FEW, path, scales, n, noise)
        for noise in (1.0, 4.0, 12.0)
        for path, scales, n in product(PATHS, (1, 2, 3, 4), (2, 3))
    ]


def shares_of_bets() -> list[Rate]:
    """Wrong bets among those made at real noise, one rate a path."""
    groups = [wrong_bets()[first : first + 8] for first in range(0, 8 * len(PATHS), 8)]
    return [Rate(sum(f.of_bets.hits for f in group), sum(f.of_bets.n for f in group)) for group in groups]


def crossing_lines() -> list[Rate]:
    """Lines that cross zero half a decade before the target, at 2 to 4 scales."""
    sizes = product((0.02, 0.06, 0.12, 0.18), (2, 3, 4))
    return [
        simulate.wrong_bets(FEW, simulate.line(-2 * at / simulate.DECADE, at), scales, 3)
        for at, scales in sizes
    ]


def bet_coverages(sd: float) -> list[Rate]:
    return [
        simulate.bet_coverage(REPS, simulate.walk(sd), scales, n)
        for scales, n in product((1, 2, 3, 4, 5), SEEDS)
    ]


def chances_hold(shares: Sequence[float]) -> bool:
    middles = [(low + high) / 2 for low, high in answers.CHANCES]
    return all(abs(share - middle) <= 0.08 for share, middle in zip(shares, middles, strict=True))


TABLE = [
    Row("HERE called, truth zero at the largest scale: own t, n = 2, 3, 5", "<= .05",
        lambda: [simulate.at_largest(REPS, 1, n) for n in SEEDS], all_within(0.05)),
    Row("the same, block of 2, 3, 6, 20 treatments", "<= .05",
        lambda: [simulate.at_largest(REPS, *pair) for pair in product((2, 3, 6, 20), SEEDS)],
        all_within(0.05)),
    Row("(called by the pooled interval and the sign at the largest scale, zero there; lines, scatter .02, "
        "walk .03 below; 2 to 4 scales, n = 2, 3; for contrast)", "> .3 at most",
        lambda: [answers.pooled_with_sign(FEW, path, scales, n)
                 for path, scales, n in product(BELOW, (2, 3, 4), (2, 3))],
        lambda rates: max(rate.value for rate in rates) > 0.3),
    *[
        Row(f"an arm of {noisy:g} times the SD called, block of 2 or 3 treatments", f"<= {limit}",
            lambda noisy=noisy: [simulate.at_largest(REPS, v, n, noisy=noisy, arm=v)
                                 for v, n in product((2, 3), SEEDS)],
            all_within(limit))
        for noisy, limit in ((1.5, 0.07), (2.0, 0.09))
    ],
    Row("power of HERE, k = 1.01, n = 3: own t; block of 2, 3, 6 treatments", ">= .4; .6; .7; .75",
        lambda: tuple(simulate.at_largest(REPS, v, 3, 0.01 * simulate.SLOPE) for v in (1, 2, 3, 6)),
        lambda rates: all(r.value >= low for r, low in zip(rates, (0.4, 0.6, 0.7, 0.75), strict=True))),
    Row("ln k of one scale, n = 2, k = 1.01, 1.05, 1.1, 1.3", ">= .945",
        lambda: [answers.k_of_two_seeds(REPS, k) for k in (1.01, 1.05, 1.1, 1.3)], all_from(0.945)),
    Row("Welch's F over 2, 3, 4 equal scales, equal noise, n = 2, 3, 5; over 5 scales, n = 3, 5", "<= .13",
        lambda: [simulate.heterogeneous(REPS, s, n, (1.0,) * s)
                 for s, n in (*product((2, 3, 4), SEEDS), (5, 3), (5, 5))],
        all_within(0.13)),
    Row("(the same over 5 scales, n = 2, where F is too narrow)", "> .13",
        lambda: (simulate.heterogeneous(2 * REPS, 5, 2, (1.0,) * 5),), lambda rates: rates[0].value > 0.13),
    Row("the same, noise 4 to 1 and 1 to 4 over 3 scales, n = 3, 5", "<= .13",
        lambda: [simulate.heterogeneous(REPS, 3, n, noises)
                 for noises, n in product(((4, 2, 1), (1, 2, 4)), (3, 5))],
        all_within(0.13)),
    Row("BET's interval (.90), walk of .03, 1 to 5 scales, n = 2, 3, 5", ">= .91",
        lambda: bet_coverages(0.03), all_from(0.91)),
    Row("the same, walk of .05", ">= .80", lambda: bet_coverages(0.05), all_from(0.80)),
    Row("BET on the wrong side, share of ladders: walks of .03, .05, with heavy tails, lines N(0, .04), "
        "saturating, scatter .02, constant; 1 to 4 scales, n = 2, 3; noise x1, x4, x12", "<= .02",
        lambda: [found.of_ladders for found in wrong_bets()], all_within(0.02)),
    Row("the same, share of the bets made, real noise, by path", "<= .05", shares_of_bets, all_within(0.05)),
    Row("BET_B where a line crosses zero before the target, ln k at the largest scale .02 to .18", "<= .005",
        crossing_lines, all_within(0.005)),
    Row("chance told in (.05, .2), (.2, .4), (.6, .8), (.8, .95), walk of .03: B better in",
        "within .08 of the middle", lambda: answers.told_chances(5_000), chances_hold),
    Row("ln k at equal FLOPs, FLOP ratios .8 to 1.6, n = 3: bias; coverage", "within .004; >= .92",
        lambda: [answers.compute_matched(REPS, ratio) for ratio in (0.8, 0.9, 1.1, 1.25, 1.6)],
        lambda found: all(abs(f.bias) <= 0.004 and f.coverage.value >= 0.92 for f in found)),
    *[
        Row(f"{scales} scales, the control scatters by {scatter:g} nats (luck of a scale; bends): trend, "
            "projection, k", ">= .92",
            lambda s=scales, sd=scatter: tuple(
                ladders.ladder_coverage(FEW, s, sd, bends=bends) for bends in (False, True)
            ),
            lambda found: all(f.at_least(0.92) for f in found))
        for scales, scatter in ((4, 0.0), (4, 0.0023), (4, 0.021), (8, 0.0023), (8, 0.0098))
    ],
]  # fmt: skip


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_row(row: Row):
    found = row.run()
    ROWS.append((row.name, row.limit, shown(found), "yes" if row.holds(found) else "NO"))
    assert row.holds(found), shown(found)


def test_write_the_report():
    """Last: what the rows above achieved."""
    text = REPORT.read_text()
    lines = ["| test | must hold | achieved | holds |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in ROWS]
    head, rest = text.split(BEGIN)
    REPORT.write_text(head + BEGIN + "\n".join(lines) + "\n" + END + rest.split(END)[1])
    assert len(ROWS) == len(TABLE)


def shown(found: Any) -> str:
    if isinstance(found, tuple):
        return "; ".join(map(str, found))
    if isinstance(found[0], Rate):
        return answers.extremes(found)
    if isinstance(found[0], answers.Matched):
        biases = [f.bias for f in found]
        return f"{min(biases):+.4f} to {max(biases):+.4f}; {answers.extremes([f.coverage for f in found])}"
    return ", ".join(f"{share:.3f}" for share in found)
