"""Evidence and runs that are made up, for the tests of what is carried from one to the other."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np

from harness.compare.results.comparison import Rule
from harness.compare.results.verdict_types import Decision, Ladder, LargestScale, Rung
from harness.compare.stats.bet import Drift
from harness.compare.stats.compute_multiplier import multiplier_with_interval
from harness.compare.stats.estimates import Effect, SlopeAxis
from harness.compare.stats.scale_trend import trend
from harness.plan.extrapolation.evidence import PairEvidence, TreatmentEvidence
from harness.plan.plan_types import PlannedRun
from harness.plan.predict import EvidenceKind, PlanEstimate

DECADE = math.log(10)
AT = np.log(1e11) + np.arange(4) * math.log(3)
"""ln FLOPs of the scales of evidence that is made up."""


def treatment_evidence(
    log_k, se=0.01, *, df=4.0, decision=Decision.INCONCLUSIVE, gate=None, at=AT, flags=(), variant="b"
):
    """Of multipliers at scales of compute e^at; the loss difference is minus half of ln k."""
    k = [multiplier_with_interval(SlopeAxis.k_tokens, one, se, df, 3, ()) for one in log_k]
    rungs = [
        make_rung(f"{i}", math.exp(x), one, se, flags, variant)
        for i, (x, one) in enumerate(zip(at, k, strict=True))
    ]
    mean, last = float(np.mean(log_k)), rungs[-1]
    pooled = multiplier_with_interval(SlopeAxis.k_tokens, mean, se / 2, 4 * df, 12, ())
    ladder = make_with_defaults(
        Ladder, variant=variant, control="a", scales=tuple(rung.scale for rung in rungs), decision=decision,
        largest_scale=make_with_defaults(LargestScale, scale=last.scale, delta=last.delta, k=last.k),
        k=pooled, flags=flags,
        trend=trend(at, k, sign=math.copysign(1, mean)),
    )  # fmt: skip
    return TreatmentEvidence(ladder, tuple(rungs), gate)


def make_rung(scale, flops, k, se, flags=(), variant="b") -> Rung:
    mean = -k.log_k / 2
    delta = Effect(mean, mean - 2 * se, mean + 2 * se, 0.5, 3, 2.0, "t", se=se)
    return make_with_defaults(
        Rung, scale=scale, variant=variant, control="a", n=3, flops=flops, k=k, delta=delta, flags=flags
    )


def make_with_defaults(kind, **known):
    """With the default of each field, or None, where nothing is said."""
    fields = dataclasses.fields(kind)
    required = (each.name for each in fields if each.default is dataclasses.MISSING)
    return kind(**dict.fromkeys(required, None) | known)


def made_rule(family, **changed) -> Rule:
    given = {
        "control": "a",
        "margin": 0.01,
        "alpha": 0.05,
        "stopping": "none",
        "family": family,
        "domains": (),
    }
    return make_with_defaults(Rule, **given | changed)


def pair_evidence(*treatments, drift: Drift | None = None, **changed) -> PairEvidence:
    """Of treatments, by a rule of which some values are changed."""
    names = tuple(treatment.ladder.variant for treatment in treatments)
    rungs = {treatment.ladder.variant: treatment.rungs for treatment in treatments}
    return PairEvidence(
        "runs/made", "made", "nats a token", made_rule(names, **changed), treatments, rungs,
        dict.fromkeys(names, drift or Drift()),
    )  # fmt: skip


def planned_runs(*named, unit="nats a token", tokens=10**9, flops=1e4):
    """Runs `<scale>/<variant>` as described, and as planned."""
    runs, planned = [], []
    for name in named:
        scale, variant = name.split("/")
        config = SimpleNamespace(scale=SimpleNamespace(name=scale), variant=SimpleNamespace(name=variant))
        runs.append(
            SimpleNamespace(
                name=f"{name}/seed0",
                config=config,
                facts=SimpleNamespace(loss_unit=unit, active_parameters=7, non_embedding=7),
            )
        )
        planned.append(
            PlannedRun(
                name=f"{name}/seed0", parameters=1, active_parameters=1, flops_per_token=flops, tokens=tokens,
                batch=8,
                kind="h100", chips=100, devices=100, days=PlanEstimate(10.0, 8.0, 13.0, EvidenceKind.assumed),
            )
        )  # fmt: skip
    return runs, planned
