"""Tables of a comparison as plain text cells, for page, terminal and Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.compare.results.comparison import Comparison
from harness.compare.results.context_types import FairnessRow, RunState
from harness.compare.results.verdict_types import Ladder
from harness.compare.stats.estimates import Multiplier
from harness.compare.stats.speed_up import multiplier_per_flop
from harness.compare.verdict.flags import BLOCKING, EXPLANATIONS
from harness.core.number_format import (
    MISSING,
    format_correlation,
    format_count,
    format_loss,
    format_number,
    format_p_value,
    format_ratio,
)
from harness.report.tables import wording
from harness.report.tables.text_table import Table, drop_columns, make_table

PHRASE_COLUMNS = ("mix", "shared examples", "kernels")
"""Columns of the fairness table with long cells."""


def split_phrase_columns(content: Table) -> tuple[Table, tuple[str, ...]]:
    """Return the fairness table without its long columns, and lines with their cells: one per variant, or one
    per scale if they differ between the scales of a variant."""
    long = [i for i, name in enumerate(content.columns) if name in PHRASE_COLUMNS]
    scales_by_phrase: dict[str, dict[str, list[str]]] = {}
    for row in content.rows:
        phrase = ", ".join(f"{content.columns[i]} {row[i]}" for i in long if row[i] != MISSING)
        scales_by_phrase.setdefault(row[1], {}).setdefault(phrase, []).append(row[0])
    lines = tuple(
        f"{variant if len(phrases) == 1 else f'{variant} at ' + ', '.join(scales)}: {phrase}."
        for variant, phrases in scales_by_phrase.items()
        for phrase, scales in phrases.items()
        if phrase
    )
    return drop_columns(content, PHRASE_COLUMNS), lines


def fairness(comparison: Comparison) -> Table:
    """Return one row per scale and variant: size, budget and settings, and their ratio to the control."""
    columns = (
        "scale", "variant", "parameters", "active", "FLOPs/token", "tokens", "steps", "seeds",
        "base", "learns", "shared start", "schedule", "learning rate", "tuning", "tokenizer", "mix",
        "shared examples", "kernels", "flags",
    )  # fmt: skip
    rows = comparison.fairness
    tokens = _distinct_texts([row.tokens for row in rows], format_count, "{:,}")
    rates = _distinct_texts(
        [row.learning_rate for row in rows], lambda rate: format_number(rate, 2), "{:.6g}"
    )
    content = make_table(columns, map(_fairness_row, rows, tokens, rates), left=2)
    sparse = any(_active_parameters(row) != MISSING for row in comparison.fairness)
    kernels = {(row.scale, row.kernels) for row in rows}
    differ = len(kernels) > len({row.scale for row in rows})
    unused = tuple(name for name, used in (("active", sparse), ("kernels", differ)) if not used)
    return drop_columns(content, unused)


def _distinct_texts(values: Sequence[Any], short: Callable[[Any], str], exact: str) -> list[str]:
    """Return the texts of a column: short ones, or exact ones if different values would read alike."""
    texts = [short(value) for value in values]
    alike = len({*texts}) < len({*values})
    exact_texts = (MISSING if value is None else exact.format(value) for value in values)
    return [*exact_texts] if alike else texts


def _fairness_row(row: FairnessRow, tokens: str, rate: str) -> tuple[str, ...]:
    return (
        row.scale, f"{row.variant} (control)" if row.control else row.variant,
        _amount(row.non_embedding, row.parameters_ratio), _active_parameters(row),
        _amount(row.flops_per_token, row.flops_ratio), tokens, str(row.steps),
        str(row.seeds), row.base or MISSING, format_count(row.trainable) if row.base else MISSING,
        MISSING if row.shared is None or row.control else f"{100 * row.shared:.0f} %", row.schedule,
        rate, row.tuning or MISSING, row.tokenizer or MISSING,
        *_data_cells(row), row.kernels or MISSING, ", ".join(row.flags),
    )  # fmt: skip


def _active_parameters(row: FairnessRow) -> str:
    """Return the number of parameters that one token passes through, if that is not all of them."""
    is_sparse = row.active_parameters not in (0, row.non_embedding)
    return format_count(row.active_parameters) if is_sparse else MISSING


def _data_cells(row: FairnessRow) -> tuple[str, str]:
    """Return the mix, and the share of examples that the control read too: `93 %, the same to step 104`."""
    if row.control or row.shared_examples is None:
        return row.mix or MISSING, MISSING
    until = f", the same to step {row.parting}" if row.parting else ""
    return row.mix, f"{100 * row.shared_examples:.3g} %{until}"


def _amount(value: float, ratio: float | None) -> str:
    """Return an amount with its ratio to the control, such as `160k +0.4 %`; a dash if it is not known."""
    return f"{format_count(value)} {format_ratio(ratio)}".strip() if value else MISSING


def tuning(comparison: Comparison) -> Table:
    """Return the loss by learning rate, one column per tuned variant; empty at rates that were not tried."""
    curves = {row.variant: dict(row.curve) for row in comparison.fairness if row.curve}
    rates = sorted({rate for curve in curves.values() for rate in curve})
    rows = ((f"{rate:.3g}", *(_tuned_loss(curve, rate) for curve in curves.values())) for rate in rates)
    return make_table(("learning rate", *curves), rows)


def _tuned_loss(curve: Mapping[float, float | None], rate: float) -> str:
    """Return the loss at a rate, with a star if it is the lowest of its curve."""
    if rate not in curve:
        return ""
    value = curve[rate]
    if value is None or not math.isfinite(value):
        return "diverged"
    finite = [loss for loss in curve.values() if loss is not None and math.isfinite(loss)]
    return f"{format_loss(value)} *" if value == min(finite) else format_loss(value)


PER_FLOP = "k per FLOP [95 % CI]"


def rungs(comparison: Comparison, ladder: Ladder) -> Table:
    """Return one row per scale of one comparison; k per FLOP where FLOPs per token differ by over 1 %."""
    columns = (
        "scale", "n", "ΔL [95 % CI]", "k [95 % CI]", "p (Holm)", PER_FLOP, "corr", "method (df)", "decision",
        "flags",
    )  # fmt: skip
    rows = (
        (rung.scale, str(rung.n) if rung.paired else f"{rung.n} unpaired", wording.format_effect(rung.delta),
         wording.format_multiplier(rung.k), format_p_value(rung.p_holm), _multiplier_per_flop(rung.k),
         format_correlation(rung.correlation),
         rung.method if rung.df is None else f"{rung.method} ({format_number(rung.df, 2)})",
         rung.decision.value, ", ".join(rung.flags))
        for rung in comparison.rungs
        if rung.variant == ladder.variant
    )  # fmt: skip
    content = make_table(columns, rows, left=2)
    differs = any(_multiplier_per_flop(rung.k) != MISSING for rung in comparison.rungs)
    return content if differs else drop_columns(content, (PER_FLOP,))


def _multiplier_per_flop(k: Multiplier | None) -> str:
    if k is None or k.k is None or k.k_per_flop is None:
        return MISSING
    return wording.format_multiplier(multiplier_per_flop(k))


def domains(comparison: Comparison) -> Table:
    """Return one row per variant, scale and domain of the evaluations."""
    columns = ("variant", "scale", "domain", "control", "treatment", "ΔL [95 % CI]", "n")
    rows = (
        (rung.variant, rung.scale, item.domain, format_loss(item.control),
         format_loss(item.treatment), wording.format_effect(item.delta), str(item.delta.n))
        for rung in comparison.rungs
        for item in rung.domains
    )  # fmt: skip
    return make_table(columns, rows, left=3)


def samples(comparison: Comparison) -> Table:
    """Return the distances of image samples from real images; `held-out` is that of other real images."""
    columns = ("scale", "variant", "distance", "held-out", "difference [95 % CI]", "seeds")
    rows = (
        (item.scale, item.variant, format_number(item.distance), format_number(item.floor),
         wording.format_effect(item.delta) if item.delta else MISSING, str(item.seeds))
        for item in comparison.samples
    )  # fmt: skip
    return make_table(columns, rows, left=2)


def samples_title(comparison: Comparison) -> str:
    """Return a title with the distance and the number of samples; '' without samples."""
    if not comparison.samples:
        return ""
    count, features = comparison.samples[0].count, comparison.samples[0].features
    return f"Samples: squared Frechet distance to real images on {features}, {count} samples a run"


def forgetting(comparison: Comparison) -> Table:
    """Return the change of loss on domains that fine-tuning leaves out, per scale, variant and domain."""
    columns = (
        "scale", "variant", "domain", "n", "start", "end", "change [95 % CI]", "against control [95 % CI]",
    )  # fmt: skip
    rows = (
        (row.scale, row.variant, row.domain, str(row.change.n),
         format_loss(row.start), format_loss(row.end), wording.format_effect(row.change),
         wording.format_effect(row.delta) if row.delta else MISSING)
        for row in comparison.forgetting
    )  # fmt: skip
    return make_table(columns, rows, left=3)


def looks(comparison: Comparison) -> Table:
    """Return one row per interim look."""
    columns = ("variant", "scale", "share of tokens", "ΔL [95 % CI]", "p", "may spend", "outcome")
    rows = (
        (rung.variant, rung.scale, f"{100 * look.share:.0f} %", wording.format_effect(look.delta),
         format_p_value(look.delta.p), format_p_value(look.alpha), look.outcome)
        for rung in comparison.rungs
        for look in rung.looks
    )  # fmt: skip
    return make_table(columns, rows, left=2)


def iso(comparison: Comparison) -> Table:
    """Return the differences at equal steps, tokens, FLOPs and device-seconds."""
    columns = ("variant", "scale", "equal", "at", "ΔL [95 % CI]", "n")
    rows = (
        (rung.variant, rung.scale, item.axis.replace("_", "-"), format_count(item.value),
         wording.format_effect(item.delta), str(item.delta.n))
        for rung in comparison.rungs
        for item in rung.iso
    )  # fmt: skip
    return make_table(columns, rows, left=3)


def gate(comparison: Comparison) -> Table:
    """Return the criteria of each treatment, and below them whether it is promoted."""
    outcome = {True: "won", False: "lost", None: "not measured"}
    rows = []
    for result in comparison.gate or ():
        rows += [
            (result.variant, item.name, outcome[item.passed], format_number(item.value),
             format_number(item.margin), item.detail)
            for item in result.criteria
        ]  # fmt: skip
        promoted = "promoted" if result.promote else "not promoted"
        rows.append((result.variant, "all", promoted, MISSING, MISSING, result.reason))
    return make_table(("variant", "criterion", "outcome", "value", "margin", "detail"), rows, left=2)


def divergence(comparison: Comparison) -> Table:
    """Return the numbers of diverged runs, without variants that have none."""
    rows = (
        (item.variant, f"{item.diverged} of {item.runs}", f"{item.control_diverged} of {item.control_runs}",
         format_p_value(item.p))
        for item in comparison.divergence
        if item.diverged or item.control_diverged
    )  # fmt: skip
    return make_table(("variant", "diverged", "control diverged", "p (Fisher)"), rows)


def experts(comparison: Comparison) -> Table:
    """Return the use of experts over the last tenth of training, per scale and variant."""
    rows = (
        (use.scale, use.variant, str(use.n), f"{use.load:.3g}", f"{100 * use.dropped:.3g} %")
        for use in comparison.experts
    )
    return make_table(("scale", "variant", "n", "largest load (1: even)", "dropped"), rows, left=2)


OWN_METRICS_TITLE = "Metrics of the runs' own, at the end"


def own_metrics(comparison: Comparison) -> Table:
    """Return the metrics of the runs' own at their end, per scale, metric, domain and variant."""
    columns = (
        "scale", "metric", "domain", "variant", "n", "mean", "against control [95 % CI]", "unit", "better",
    )  # fmt: skip
    rows = (
        (row.scale, row.metric, row.domain or MISSING, row.variant, str(row.seeds),
         format_number(row.mean, 4), wording.format_amounts(row.delta) if row.delta else MISSING,
         row.unit or MISSING, row.better or MISSING)
        for row in comparison.metrics
    )  # fmt: skip
    return make_table(columns, rows, left=4)


def flags(comparison: Comparison) -> Table:
    """Return every flag with its places and meaning, first those that block a verdict."""
    ordered = sorted(comparison.flags, key=lambda flag: (flag not in BLOCKING, flag))
    rows = (
        (flag, "blocks the verdict" if flag in BLOCKING else "warning", _flag_places(comparison, flag),
         EXPLANATIONS.get(flag, MISSING))
        for flag in ordered
    )  # fmt: skip
    return make_table(("flag", "weight", "where", "meaning"), rows, left=4)


def _flag_places(comparison: Comparison, flag: str) -> str:
    """Return where a flag is set: `hybrid at xs, s; short, ladder`."""
    places: dict[str, list[str]] = {}
    for item in [*comparison.rungs, *comparison.fairness]:
        if flag in item.flags and item.scale not in places.setdefault(item.variant, []):
            places[item.variant].append(item.scale)
    for item in comparison.ladder:
        if flag in item.flags:
            places.setdefault(item.variant, [])
    return "; ".join(f"{name} at {', '.join(at)}" if at else f"{name}, ladder" for name, at in places.items())


def runs(comparison: Comparison) -> Table:
    """Return the end state and outcome of every run."""
    return _runs(comparison.runs)


UNPAIRED_TITLE = "Runs without a paired variant, not part of the verdict"


def unpaired_runs(comparison: Comparison) -> Table:
    """Return the runs of scales at which nothing is compared, if other scales are compared."""
    compared_scales = {rung.scale for rung in comparison.rungs}
    return _runs([run for run in comparison.runs if compared_scales and run.scale not in compared_scales])


def _runs(states: Sequence[RunState]) -> Table:
    """Return one row per run. An outcome has its unit beside it if that is not nats a token."""
    rows = (
        (run.scale, run.variant, str(run.seed), run.state, f"{run.step} of {run.steps}",
         format_loss(run.outcome) + f" {run.unit}" * (run.outcome is not None and run.unit != RunState.unit),
         run.problem)
        for run in states
    )  # fmt: skip
    return make_table(("scale", "variant", "seed", "state", "steps", "outcome", "problem"), rows, left=4)


def deviations(comparison: Comparison) -> Table:
    """Return the deviations from the recorded rule."""
    rows = ((item.kind, item.detail) for item in comparison.deviations)
    return make_table(("deviation", "detail"), rows, left=2)
