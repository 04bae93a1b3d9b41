"""A comparison made by hand, so that the report is tested without the engine that fills it."""

from __future__ import annotations

import math

from harness.compare.results.comparison import Comparison, Deviation, Rule
from harness.compare.results.context_types import DivergenceCount, FairnessRow, RunState
from harness.compare.results.verdict_types import (
    BetVerdict,
    Criterion,
    Decision,
    DomainEffect,
    Equivalence,
    GateResult,
    IsoRow,
    Ladder,
    LargestScale,
    Look,
    Pair,
    Rung,
)
from harness.compare.stats.bet import Bet, BetDecision, Drift
from harness.compare.stats.estimates import (
    Direction,
    Effect,
    Estimand,
    Multiplier,
    Projection,
    SlopeAxis,
    Trend,
)

SCALES = {"xs": 1.2e15, "s": 1.08e16, "m": 1.2e17}
VERDICT = (
    "hybrid is INCONCLUSIVE against mha: k = 1.03 [0.99, 1.07] over 3 scales. "
    "short is worse than mha, as it should be: the sweep could have found a loss of this size."
)


def effect(mean: float, half: float, n: int = 3) -> Effect:
    if n == 1:
        return Effect(mean, None, None, None, 1, None, "single pair", (), Estimand.trajectory_only)
    return Effect(mean, mean - half, mean + half, 0.031, n, 5.2, "moderated t")


def multiplier(log_k: float, half: float, n: int = 3) -> Multiplier:
    low, high = log_k - half, log_k + half
    return Multiplier(
        SlopeAxis.k_tokens, math.exp(log_k), math.exp(low), math.exp(high), log_k, half / 2, low, high,
        0.04, 5.2, n, 0.11, flags=("SLOPE_LOCAL",),
    )  # fmt: skip


def rung(scale: str, variant: str, log_k: float, *, control: str = "mha", n: int = 3) -> Rung:
    delta = effect(-0.11 * log_k, 0.004, n)
    return Rung(
        scale=scale, variant=variant, control=control, n=n, paired=True, tokens=1_600_000,
        flops=SCALES.get(scale, 1e16), control_loss=2.91, treatment_loss=2.91 - 0.11 * log_k, delta=delta,
        k=multiplier(log_k, 0.04, n) if n > 1 else None, correlation=0.24, method=delta.method, df=delta.df,
        p=delta.p, p_holm=delta.p, sign_flip=0.25, smallest_p=0.25, look=1.0,
        looks=(Look(0.5, 800_000, delta, None, "shown"), Look(1.0, 1_600_000, delta, None, "shown")),
        pairs=tuple(Pair(seed, 2.91, 2.9, -0.01) for seed in range(n)),
        domains=tuple(DomainEffect(d, 2.9, 2.89, delta) for d in ("code", "prose")),
        without_outliers=None, flags=("LOW_DF", "SLOPE_LOCAL") if n > 1 else ("NO_SEED_REPLICATION",),
        decision=Decision.INCONCLUSIVE if n > 1 else Decision.INVALID, reason="the interval holds 1",
        settle="9 more seeds, or the next scale", more_seeds=9,
        iso=(IsoRow("tokens", 1.6e6, delta), IsoRow("device_seconds", 12.5, delta)),
    )  # fmt: skip


def ladder(variant: str, log_k: float, *, control: str = "mha", positive: bool = False) -> Ladder:
    pooled = multiplier(log_k, 0.03)
    largest_scale = LargestScale(
        "m", effect(-0.11 * log_k, 0.004), multiplier(log_k, 0.04), 0.01, 0.02, log_k - 0.03, log_k + 0.03,
        Equivalence(0.01, 0.4, False),
    )  # fmt: skip
    estimate = Bet(
        1.2e18, log_k, 0.05, 4.0, log_k - 0.1, log_k + 0.1, 0.3, 0.7 if log_k > 0 else 0.3, 0.0024, 0.4, log_k
    )
    return Ladder(
        variant=variant, control=control, positive_control=positive, scales=tuple(SCALES),
        largest_scale=largest_scale,
        bet=BetVerdict(
            BetDecision.OPEN, estimate, 0.6, variant if log_k > 0 else control, Drift(),
            "k there is not clear of 1", "the next scale",
        ),
        k=pooled, heterogeneity_p=0.4,
        trend=Trend(-0.004, -0.02, 0.012, 0.5, 3.0, 3, Direction.UNRESOLVED, math.copysign(0.004, -log_k)),
        projection=Projection(
            1.2e18, math.exp(log_k - 0.01), math.exp(log_k - 0.12), math.exp(log_k + 0.1),
            log_k - 0.01, log_k - 0.12, log_k + 0.1, None,
        ),
        sign_flip=0.0039, smallest_p=0.0039, k_compute=None,
        flags=("SLOPE_LOCAL", "EXTRAPOLATION"),
        decision=Decision.A_BETTER if positive else Decision.INCONCLUSIVE,
        reason="the pooled interval lies below 1" if positive else "the pooled interval holds 1",
        settle="" if positive else "about 9 more seeds at each scale would halve the interval",
    )  # fmt: skip


def fairness(scale: str, variant: str, control: bool) -> FairnessRow:
    return FairnessRow(
        scale=scale, variant=variant, control=control, seeds=3, parameters=163_840, non_embedding=160_000,
        flops_per_token=9.6e5, executed_flops_per_token=1.1e6, parameters_ratio=None if control else 1.004,
        flops_ratio=None if control else 0.981, tokens=1_600_000, steps=781, schedule="wsd", horizon=781,
        tokenizer="bpe512", data="d" * 64, evaluation="e" * 64, learning_rate=0.003, tuning="shared",
        shared=None if control else 1.0, code="c" * 64, touches=() if control else ("model.attention",),
        flags=() if control else ("UNEQUAL_FLOPS",),
    )  # fmt: skip


def comparison(
    variants: tuple[str, ...] = ("mha", "hybrid", "short"), *, n: int = 3, verdict: str = VERDICT
) -> Comparison:
    """Three variants over three scales; the first is the control, the last the positive control."""
    control, *treatments = variants
    effects = dict(zip(treatments, (0.03, -0.45), strict=False))
    return Comparison(
        experiment="attention",
        verdict=verdict,
        rule=Rule(
            "hybrid loses nothing", control, treatments[-1], (), 0.01, 0.05, "none", (*treatments,), "9f" * 32
        ),
        fairness=tuple(fairness(s, v, v == control) for s in SCALES for v in variants),
        rungs=tuple(
            rung(scale, name, log_k + 0.02 * i, control=control, n=n)
            for name, log_k in effects.items()
            for i, scale in enumerate(SCALES)
        ),
        ladder=tuple(
            ladder(name, log_k, control=control, positive=name == treatments[-1])
            for name, log_k in effects.items()
        ),
        gate=(
            GateResult(treatments[0], False, 2, (
                Criterion("quality", True, 1.03, 0.01, "k over all scales"),
                Criterion("speed", None, None, 0.02, "no timing pass"),
            ), "two of four won"),
        ),
        deviations=(Deviation("seeds added", "seed 3 was added after the first look"),),
        runs=tuple(
            RunState(s, v, seed, "finished", 781, 781, 2.91, "", f"{s}/{v}/seed{seed}")
            for s in SCALES for v in variants for seed in range(n)
        ),
        divergence=tuple(DivergenceCount(v, 0, 9, 0, 9, 1.0) for v in treatments),
        notes=("Curves were read under the rule of the first launch.",),
    )  # fmt: skip
