"""Flags of a comparison: problems that a verdict lists by name.

A blocking flag makes the verdict INVALID, because its numbers answer another question. A warning qualifies a
number that is still valid.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from harness.compare.inputs.pairing import (
    JudgedResult,
    PairedRuns,
    RunPair,
    reads_other_examples,
    reads_same_stream,
)
from harness.compare.inputs.run_records import RunRecord
from harness.compare.inputs.run_terms import amounts_differ, given_flags, schedules_differ, tokens_differ
from harness.compare.stats.distributions import t_sf
from harness.compare.stats.estimates import Effect
from harness.compare.stats.paired_effects import effect_from_deltas
from harness.config.schema.decision import Axis
from harness.records.run.metrics import read_curve
from harness.records.run.provenance import Facts
from harness.records.run.training_target import END

_BLOCKING = {
    "DATA_ORDER_MISMATCH": "the two runs of a pair read different examples, and neither declared it",
    "MIXED_CODE": "the runs of one block, or the parts of one run, ran under different code",
    "UNEQUAL_TOKENS": "the two variants trained on different numbers of tokens",
    "SCHEDULE_MISMATCH": "shape or horizon of the learning-rate schedules differ, and no variant declares it",
    "HOT_LR_LOOK": "a loss was taken before the learning rate had decayed",
    "DIVERGED": "a run diverged",
    "NO_SEED_REPLICATION": "one seed: the difference cannot be told apart from seed noise",
    "SLOPE_OUT_OF_RANGE": "the difference is too large, or the control's slope too flat, for a multiplier",
    "EVAL_SET_MISMATCH": "the variants were evaluated on different held-out sets",
    "UNIT_MISMATCH": "the logged values of a variant can be no loss in the other's unit (a note says why)",
    "UNMATCHED": "what rule.match names is unequal or unknown: FLOPs to 1 %, device-seconds to 2 %",
    "HAND_EDITED": "the files of a run contradict each other or their place",
    "DAMAGED": "a record that the verdict reads is missing, damaged or unreadable (a note names it)",
}
_WARNINGS = {
    "UNEQUAL_FLOPS": "FLOPs per token differ by over 1 %",
    "UNEQUAL_PARAMS": "parameters differ by over 1 %",
    "OTHER_TOKENS": "rule.match names FLOPs or device-seconds, so the tokens of the two variants differ",
    "LR_GRID_EDGE": "the best learning rate is at the edge of the grid",
    "UNEQUAL_TUNING": "the variants were not tuned alike: the answer holds at these learning rates",
    "LOW_DF": "two or three pairs and no A/A library: the interval is wide",
    "NEGATIVE_CORRELATION": "pairing did not help: the losses of a pair are negatively correlated",
    "CORRELATION_IMPLAUSIBLE": "two variants agree too well: the same run twice?",
    "SEED_REUSED_FOR_TUNING": "a seed of the comparison was also used to tune the learning rate",
    "SCHEDULE_FLIP": "before the cooldown the difference had the opposite sign",
    "OUTLIER_SEED": "one pair lies over 5 pooled MAD from its scale's median (shown with and without)",
    "MIXED_HARDWARE": "the runs of a pair were trained on different software or hardware",
    "POOR_FIT": "the control's slope is poorly known",
    "EXTRAPOLATION": "beyond the data",
    "VARIANCE_MISMATCH": "pairs are noisier than the A/A library, or far quieter: it is not used",
    "SLOPE_LOCAL": "the slope is local: from half the tokens to all of them",
    "SLOPE_GIVEN": "the control's slope was given by hand, and counts as known exactly",
    "NO_SLOPE": "no cooldown branch and fewer than four scales: no multiplier",
    "INCOMPLETE": "some runs of this rung have no outcome yet",
    "DECAY_UNVERIFIED": "nothing in the logs shows that the learning rate had decayed: no direction is given",
    "SURPLUS_SEEDS": "seeds that one variant alone has are left out",
    "ORDER_UNVERIFIED": "no hash of the examples read: equal data order is assumed",
    "OPTIONAL_STOPPING": "a scale stopped early at a look: its own interval accounts for that, pooled k and "
    "trend do not",
    "HETEROGENEOUS": "ln k differs between the scales: no pooled k is given",
    "NOISIER_ARM": "a variant is noisier than the others: its difference keeps its own variance",
    "ONE_SCALE": "one scale: how k changes with scale is assumed alone",
    "TREND_AGAINST": "the line through the scales points the other way at the target",
    "DECLARED_DRIFT": "the scales hardly show how k changes with scale: the declared drift decides",
    "TARGET_FAR": "the target is more than two decades of compute beyond the largest scale",
    "NOISY_TIMING": "the timed steps scatter by over 2 % on a shared host: the speed-up decides nothing",
    "TARGET_UNTIMED": "the step times at the target are not known: that of a smaller scale does not tell",
}
BLOCKING = frozenset(_BLOCKING)
WITHHOLDS_DIRECTION = frozenset({"DECAY_UNVERIFIED"})
"""Flags under which a difference is shown but no variant is called better."""
SIGNIFICANCE = 0.05
EXPLANATIONS = _BLOCKING | _WARNINGS
"""Explanation of each flag, one sentence."""


def blocking_flags(flags: Iterable[str]) -> list[str]:
    """Return the blocking ones among `flags`, sorted."""
    return sorted(BLOCKING.intersection(flags))


def rung_flags(pairing: PairedRuns, delta: Effect, correlation: float | None) -> set[str]:
    """Return the flags of one treatment at one scale, from its runs and its effect."""
    runs = (*pairing.control_runs, *pairing.treatment_runs)
    lacks_pairs = pairing.paired and len(pairing.pairs) < len({run.provenance.seed for run in runs})
    surplus = all(run.directory is None and run.complete for run in runs)
    too_close = correlation is not None and correlation > 0.99 and len(pairing.pairs) >= 5
    conditions = {
        "HAND_EDITED": any(run.edited_by_hand for run in runs),
        "DIVERGED": any(run.diverged for run in runs),
        "DAMAGED": any(run.problem for run in runs),
        "UNIT_MISMATCH": any(run.unit_problem for run in runs),
        "DECAY_UNVERIFIED": any(run.decay_unverified for run in runs),
        "INCOMPLETE": lacks_pairs and not surplus,
        "SURPLUS_SEEDS": lacks_pairs and surplus,
        "CORRELATION_IMPLAUSIBLE": (pairing.paired and too_close) or any(map(_same_run, pairing.pairs)),
        "NEGATIVE_CORRELATION": pairing.paired and _is_negative(correlation, len(pairing.pairs)),
        "SCHEDULE_FLIP": _sign_flipped(pairing, delta),
    }
    return _present(conditions).union(delta.flags, arm_flags(pairing), *map(pair_flags, pairing.pairs))


def arm_flags(pairing: PairedRuns) -> set[str]:
    """Return the unwanted differences between the two variants: of the paired runs, or of all runs with a
    result if none are paired. What one pair shares may differ between pairs, so only unpaired runs are held
    to one length and one schedule."""
    controls, treatments = pairing.judged_results
    if not controls or not treatments:
        return set()
    (control, control_result), (treatment, _) = controls[0], treatments[0]
    ends = [*controls, *treatments]
    conditions = {
        "HOT_LR_LOOK": not all(result.decayed for _, result in ends),
        "EVAL_SET_MISMATCH": len({run.provenance.facts.eval_fingerprint for run, _ in ends}) > 1
        or any(result.by_domain.keys() != control_result.by_domain.keys() for _, result in ends),
        "MIXED_CODE": len({run.provenance.code_hash for run, _ in ends}) > 1,
    }
    flags = _present(conditions) | size_flags(control.provenance.facts, treatment.provenance.facts)
    if pairing.paired:
        return flags
    schedules = {"SCHEDULE_MISMATCH"} if _any_other_schedule(pairing, control, ends) else set()
    return flags.union(schedules, *(_amount_flags(controls[0], end, pairing.match) for end in ends))


def pair_flags(pair: RunPair) -> set[str]:
    """Return the flags of one pair: its unwanted differences."""
    control, treatment = pair.control.provenance, pair.treatment.provenance
    a, b = pair.control.terms, pair.treatment.terms
    unproven = reads_same_stream(pair) is None
    conditions = {
        "DATA_ORDER_MISMATCH": reads_other_examples(pair),
        "ORDER_UNVERIFIED": unproven,
        "MIXED_CODE": control.code_hash != treatment.code_hash
        or "+" in control.code_hash + treatment.code_hash,
        "MIXED_HARDWARE": control.versions != treatment.versions,
    }
    ends = (pair.control, pair.control_result), (pair.treatment, pair.treatment_result)
    terms = given_flags(a, b, pair.match, pair.uses_looks)
    return _present(conditions) | terms | _amount_flags(*ends, pair.match)


def _amount_flags(control: JudgedResult, treatment: JudgedResult, match: Axis) -> set[str]:
    """Return the flags of the amounts that two runs had got when they were scored. The device-seconds of a
    sweep are those of its timing pass, which the rung knows; those of logs without the column are vouched
    for."""
    (a, x), (b, y) = control, treatment
    other_tokens = tokens_differ(a.terms, b.terms, (x.tokens, y.tokens))
    if match is Axis.tokens:
        return {"UNEQUAL_TOKENS"} if other_tokens else set()
    amounts = (x.flops, y.flops) if match is Axis.flops else (x.device_seconds, y.device_seconds)
    is_known = match is Axis.flops or (a.terms.from_log and any(amounts))
    conditions = {
        "OTHER_TOKENS": other_tokens,
        "UNMATCHED": is_known and amounts_differ(*amounts, match),
    }
    return _present(conditions)


def _any_other_schedule(pairing: PairedRuns, control: RunRecord, ends: Sequence[JudgedResult]) -> bool:
    return any(schedules_differ(control.terms, run.terms, pairing.uses_looks) for run, _ in ends)


def size_flags(a: Facts, b: Facts) -> set[str]:
    """Return the flags of two models if parameters or FLOPs per token of b differ by over 1 % of a's."""
    conditions = {
        "UNEQUAL_FLOPS": abs(b.flops_per_token - a.flops_per_token) > 0.01 * abs(a.flops_per_token),
        "UNEQUAL_PARAMS": abs(b.parameters - a.parameters) > 0.01 * abs(a.parameters),
    }
    return _present(conditions)


def _is_negative(correlation: float | None, pairs: int) -> bool:
    """Return True if a correlation is below zero by a one-sided t-test; at few pairs a sign says nothing."""
    if correlation is None or correlation >= 0 or pairs < 4:
        return False
    if correlation <= -1:
        return True
    t = correlation * math.sqrt((pairs - 2) / (1 - correlation**2))
    return t_sf(-t, pairs - 2) < SIGNIFICANCE


def asks_for_tuning(pairing: PairedRuns) -> bool:
    """Return True if a variant declares another schedule, batch or optimizer, on which the best learning rate
    depends, and neither declares the rate."""
    runs = (*pairing.control_runs, *pairing.treatment_runs)
    nodes = {node for run in runs for node in run.provenance.touches}
    if "optimizer.learning_rate" in nodes:
        return False
    return "scale" in nodes or any(
        node == root or node.startswith(root + ".")
        for node in nodes
        for root in ("schedule", "optimizer", "scale.batch")
    )


def _present(conditions: Mapping[str, bool]) -> set[str]:
    return {flag for flag, present in conditions.items() if present}


MIN_RISE = 0.02
"""Smallest rise of a diverged run's loss above the median, as a share of that."""


def paths_far_above(pairing: PairedRuns, noise: float | None) -> set[str]:
    """Return the paths of runs with a finite loss over 10 `noise` above the medians of the control and of
    their own variant. A treatment that is worse in all its seeds is an effect, not a divergence.

    noise: SD of an A/A difference at this scale. Seeds that also change the data order spread more than the
    two runs of a pair, so the control's own spread is used if it is wider. Of few seeds both can be next to
    nothing by chance, so the loss has to be higher by MIN_RISE too.
    """
    control, treatment = pairing.all_control_losses, pairing.all_treatment_losses
    if not noise or not control.size:
        return set()
    median = float(np.median(control))
    spread = 1.4826 * float(np.median(np.abs(control - np.median(control))))
    paths = set()
    for runs, losses in ((pairing.control_runs, control), (pairing.treatment_runs, treatment)):
        own_median = float(np.median(losses)) if losses.size else -math.inf
        rise = max(10 * max(noise, spread), MIN_RISE * abs(median))
        bar = max(median, own_median) + rise
        paths |= {run.path for run in runs if (o := pairing.result_at(run)) and o.loss > bar}
    return paths


def _same_run(pair: RunPair) -> bool:
    """Return True if a pair has bitwise equal losses at every step. Step tables are read only if the last
    step's loss or all evaluations are bitwise equal."""
    a, b = pair.control, pair.treatment
    same_last_loss = a.status.loss is not None and a.status.loss == b.status.loss
    if not same_last_loss and not np.array_equal(a.evals.losses, b.evals.losses):
        return False
    if a.directory is None or b.directory is None:
        return True
    control, treatment = (read_curve(directory, "steps")["loss"] for directory in (a.directory, b.directory))
    scored = not control.is_empty() or pair.control_result.loss == pair.treatment_result.loss
    return scored and control.equals(treatment)


def _sign_flipped(pairing: PairedRuns, delta: Effect) -> bool:
    """Return True if the last hot difference is significant with the opposite sign of the decayed mean."""
    if pairing.look != END or delta.mean is None:
        return False
    runs = [(pair.control, pair.treatment) for pair in pairing.pairs]
    hot = np.array([_last_hot_loss(b, pairing.domains) - _last_hot_loss(a, pairing.domains) for a, b in runs])
    effect = effect_from_deltas(hot[np.isfinite(hot)])
    return effect.p is not None and effect.p < 0.05 and (effect.mean or 0.0) * delta.mean < 0


def _last_hot_loss(run: RunRecord, domains: tuple[str, ...]) -> float:
    """Return the mean loss over the domains (all if empty) at the last evaluation with a hot rate, or NaN."""
    columns = run.evals.columns
    hot = ~columns["decayed"].astype(bool) & (columns["step"] > 0)
    if domains:
        hot &= np.isin(columns["domain"].astype(str), domains)
    if not hot.any():
        return math.nan
    last = hot & (columns["step"] == columns["step"][hot].max())
    return float(columns["loss"][last].mean())


def tuning_flags(tuning: Mapping[str, Any], control: str, variant: str, seeds: Sequence[int]) -> set[str]:
    """Return the flags of the learning-rate tuning. tuning: `{variant: {"points", "edge", "seed"}}`."""
    a, b = tuning.get(control) or {}, tuning.get(variant) or {}
    conditions = {
        "UNEQUAL_TUNING": any(a.get(key) != b.get(key) for key in ("points", "rates")),
        "LR_GRID_EDGE": bool(a.get("edge") or b.get("edge")),
        "SEED_REUSED_FOR_TUNING": bool({a.get("seed"), b.get("seed")}.intersection(seeds)),
    }
    return _present(conditions)
