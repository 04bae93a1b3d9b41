"""The tables of a comparison as plain text cells, which page, terminal and Markdown each dress."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from harness.compare.results.comparison import Comparison
from harness.compare.results.context_types import FairnessRow, RunState
from harness.compare.results.verdict_types import Ladder, Rung
from harness.compare.verdict.flags import BLOCKING
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

PHRASE_COLUMNS = ("mix", "shared examples")
"""Columns of the fairness table whose cells are phrases."""


def split_phrase_columns(content: Table) -> tuple[Table, tuple[str, ...]]:
    """The fairness table without its long columns, and a line a variant that says them; one a scale where
    a variant's differ over the scales."""
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
    """One row a scale and variant: what each was given, and how that differs from the control."""
    columns = (
        "scale", "variant", "parameters", "active", "FLOPs/token", "tokens", "steps", "seeds",
        "base", "learns", "shared start", "schedule", "learning rate", "tuning", "tokenizer", "mix",
        "shared examples", "flags",
    )  # fmt: skip
    content = make_table(columns, map(_fairness_row, comparison.fairness), left=2)
    sparse = any(_active_parameters(row) != MISSING for row in comparison.fairness)
    return content if sparse else drop_columns(content, ("active",))


def _fairness_row(row: FairnessRow) -> tuple[str, ...]:
    return (
        row.scale,
        f"{row.variant} (control)" if row.control else row.variant,
        _amount(row.non_embedding, row.parameters_ratio),
        _active_parameters(row),
        _amount(row.flops_per_token, row.flops_ratio),
        format_count(row.tokens),
        str(row.steps),
        str(row.seeds),
        row.base or MISSING,
        format_count(row.trainable) if row.base else MISSING,
        MISSING if row.shared is None or row.control else f"{100 * row.shared:.0f} %",
        row.schedule,
        format_number(row.learning_rate, 2),
        row.tuning or MISSING,
        row.tokenizer or MISSING,
        *_data_cells(row),
        ", ".join(row.flags),
    )


def _active_parameters(row: FairnessRow) -> str:
    """Parameters that one token passes through, where those are not all."""
    is_sparse = row.active_parameters not in (0, row.non_embedding)
    return format_count(row.active_parameters) if is_sparse else MISSING


def _data_cells(row: FairnessRow) -> tuple[str, str]:
    """The mix, and `93 %, the same to step 104`: what the control read too; nothing where all is the same."""
    if row.control or row.shared_examples is None:
        return row.mix or MISSING, MISSING
    until = f", the same to step {row.parting}" if row.parting else ""
    return row.mix, f"{100 * row.shared_examples:.3g} %{until}"


def _amount(value: float, ratio: float | None) -> str:
    """`160k +0.4 %`; nothing where a log does not say."""
    return f"{format_count(value)} {format_ratio(ratio)}".strip() if value else MISSING


def tuning(comparison: Comparison) -> Table:
    """Loss by learning rate, one column a variant that was tuned; a rate that a bracket lacks stays empty."""
    curves = {row.variant: dict(row.curve) for row in comparison.fairness if row.curve}
    rates = sorted({rate for curve in curves.values() for rate in curve})
    rows = ((f"{rate:.3g}", *(_tuned_loss(curve, rate) for curve in curves.values())) for rate in rates)
    return make_table(("learning rate", *curves), rows)


def _tuned_loss(curve: Mapping[float, float | None], rate: float) -> str:
    """The loss at a rate, the lowest of its curve marked."""
    if rate not in curve:
        return ""
    value = curve[rate]
    if value is None or not math.isfinite(value):
        return "diverged"
    finite = [loss for loss in curve.values() if loss is not None and math.isfinite(loss)]
    return f"{format_loss(value)} *" if value == min(finite) else format_loss(value)


def rungs(comparison: Comparison, ladder: Ladder) -> Table:
    """One row a scale of one comparison."""
    columns = (
        "scale", "n", "ΔL [95 % CI]", "k [95 % CI]", "p (Holm)",
        "corr", "method (df)", "decision", "flags",
    )  # fmt: skip
    return make_table(columns, (_rung_row(rung) for rung in rungs_of(comparison, ladder)))


def rungs_of(comparison: Comparison, ladder: Ladder) -> list[Rung]:
    return [rung for rung in comparison.rungs if rung.variant == ladder.variant]


def _rung_row(rung: Rung) -> tuple[str, ...]:
    return (
        rung.scale,
        str(rung.n) if rung.paired else f"{rung.n} unpaired",
        wording.format_effect(rung.delta),
        wording.format_multiplier(rung.k),
        format_p_value(rung.p_holm),
        format_correlation(rung.correlation),
        wording.method_text(rung.method, rung.df),
        rung.decision.value,
        ", ".join(rung.flags),
    )


def domains(comparison: Comparison) -> Table:
    columns = ("variant", "scale", "domain", "control", "treatment", "ΔL [95 % CI]", "n")
    rows = (
        (rung.variant, rung.scale, item.domain, format_loss(item.control),
         format_loss(item.treatment), wording.format_effect(item.delta), str(item.delta.n))
        for rung in comparison.rungs
        for item in rung.domains
    )  # fmt: skip
    return make_table(columns, rows, left=3)


def samples(comparison: Comparison) -> Table:
    """Distances of samples, of images alone; smaller is better, and real images have the floor."""
    columns = ("scale", "variant", "distance", "held-out", "difference [95 % CI]", "seeds")
    rows = (
        (item.scale, item.variant, format_number(item.distance), format_number(item.floor),
         wording.format_effect(item.delta) if item.delta else MISSING, str(item.seeds))
        for item in comparison.samples
    )  # fmt: skip
    return make_table(columns, rows, left=2)


def samples_title(comparison: Comparison) -> str:
    """What the distances are, and of how many samples; empty where there are none."""
    if not comparison.samples:
        return ""
    count, features = comparison.samples[0].count, comparison.samples[0].features
    return f"Samples: squared Frechet distance to real images on {features}, {count} samples a run"


def forgetting(comparison: Comparison) -> Table:
    """One row a scale, variant and domain that fine-tuning leaves out: what it did to the loss there."""
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
    columns = ("variant", "scale", "share of tokens", "ΔL [95 % CI]", "p", "may spend", "outcome")
    rows = (
        (rung.variant, rung.scale, f"{100 * look.share:.0f} %", wording.format_effect(look.delta),
         format_p_value(look.delta.p), format_p_value(look.alpha), look.outcome)
        for rung in comparison.rungs
        for look in rung.looks
    )  # fmt: skip
    return make_table(columns, rows, left=2)


def iso(comparison: Comparison) -> Table:
    columns = ("variant", "scale", "equal", "at", "ΔL [95 % CI]", "n")
    rows = (
        (rung.variant, rung.scale, item.axis.replace("_", "-"), format_count(item.value),
         wording.format_effect(item.delta), str(item.delta.n))
        for rung in comparison.rungs
        for item in rung.iso
    )  # fmt: skip
    return make_table(columns, rows, left=3)


def gate(comparison: Comparison) -> Table:
    """Four criteria a treatment, and below them whether it is promoted."""
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
    rows = (
        (item.variant, f"{item.diverged} of {item.runs}", f"{item.control_diverged} of {item.control_runs}",
         format_p_value(item.p))
        for item in comparison.divergence
        if item.diverged or item.control_diverged
    )  # fmt: skip
    return make_table(("variant", "diverged", "control diverged", "p (Fisher)"), rows)


def experts(comparison: Comparison) -> Table:
    """One row a scale and variant with experts: how they were used at the end."""
    rows = (
        (use.scale, use.variant, str(use.n), f"{use.load:.3g}", f"{100 * use.dropped:.3g} %")
        for use in comparison.experts
    )
    return make_table(("scale", "variant", "n", "largest load (1: even)", "dropped"), rows, left=2)


def flags(comparison: Comparison) -> Table:
    """Every flag with where it stands and what it means; those that forbid a verdict first."""
    ordered = sorted(comparison.flags, key=lambda flag: (flag not in BLOCKING, flag))
    rows = (
        (flag, "blocks the verdict" if flag in BLOCKING else "warning", _flag_places(comparison, flag),
         wording.flag_meaning(flag))
        for flag in ordered
    )  # fmt: skip
    return make_table(("flag", "weight", "where", "meaning"), rows, left=4)


def _flag_places(comparison: Comparison, flag: str) -> str:
    """`hybrid at xs, s; short on the ladder`."""
    places: dict[str, list[str]] = {}
    for item in [*comparison.rungs, *comparison.fairness]:
        if flag in item.flags and item.scale not in places.setdefault(item.variant, []):
            places[item.variant].append(item.scale)
    for item in comparison.ladder:
        if flag in item.flags:
            places.setdefault(item.variant, [])
    return "; ".join(f"{name} at {', '.join(at)}" if at else f"{name}, ladder" for name, at in places.items())


def runs(comparison: Comparison) -> Table:
    return _runs(comparison.runs)


UNPAIRED_TITLE = "Runs without a sibling, which decide nothing"


def unpaired_runs(comparison: Comparison) -> Table:
    """Runs of scales at which nothing is compared, where at others something is."""
    compared_scales = {rung.scale for rung in comparison.rungs}
    return _runs([run for run in comparison.runs if compared_scales and run.scale not in compared_scales])


def _runs(states: Sequence[RunState]) -> Table:
    """An outcome has its unit beside it where that is not nats."""
    rows = (
        (run.scale, run.variant, str(run.seed), run.state, f"{run.step} of {run.steps}",
         _outcome(run), run.problem)
        for run in states
    )  # fmt: skip
    return make_table(("scale", "variant", "seed", "state", "steps", "outcome", "problem"), rows, left=4)


def _outcome(run: RunState) -> str:
    if run.outcome is None or run.unit == RunState.unit:
        return format_loss(run.outcome)
    return f"{format_loss(run.outcome)} {run.unit}"


def deviations(comparison: Comparison) -> Table:
    rows = ((item.kind, item.detail) for item in comparison.deviations)
    return make_table(("deviation", "detail"), rows, left=2)
