"""Comparison of two checkpoints as sentences and as tables of plain text cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from harness.compare.checkpoints import diff_types
from harness.compare.checkpoints.distances import param_group
from harness.core.number_format import (
    MISSING,
    format_count,
    format_loss,
    format_number,
    format_percent,
    plain_text,
)
from harness.report.tables import wording
from harness.report.tables.text_table import Table, drop_columns, make_table

IN_LAYERS = "layers.*."
"""Prefix of parameters that each layer has."""


def headline(diff: diff_types.CheckpointDiff) -> str:
    """Return a line that names the two checkpoints."""
    return plain_text(f"b, {diff.b.name}, against a, {diff.a.name}")


def summary(diff: diff_types.CheckpointDiff) -> Iterator[str]:
    """Yield one sentence each on weights, predictions, losses, and the step at which the runs diverge."""
    yield _weights_text(diff)
    if diff.function.refused:
        yield plain_text(f"Predictions were not compared: {diff.function.refused}.")
    if diff.function.overall:
        yield _losses_text(diff.function.overall)
    if diff.divergence:
        yield _divergence_text("training losses", diff.divergence.losses, "steps")
        if diff.divergence.weights.compared:
            yield _divergence_text("shared weights", diff.divergence.weights, "checkpoints of equal step")
        if diff.divergence.same_examples is not None:
            examples = "the same" if diff.divergence.same_examples else "different"
            yield f"Up to their last common checkpoint the two runs had read {examples} examples."


def _weights_text(diff: diff_types.CheckpointDiff) -> str:
    total, count = diff.weights.total, format_count(diff.weights.total.parameters)
    subject = "All parameters are shared by path and shape"
    if diff.weights.one_sided:
        in_a, in_b = (format_count(side.parameters) for side in (diff.a, diff.b))
        of = f"of {in_a} in a and {in_b} in b"
        subject = f"{count} parameters are shared by path and shape, {of}"
    if not total.parameters:
        return "No parameter is shared by path and shape."
    if total.equal:
        return f"{subject}: bitwise equal."
    cosine = format_number(total.cosine, 4)
    return f"{subject}: b is {format_percent(total.relative)} of a's norm away, cosine {cosine}."


def _losses_text(overall: diff_types.LossRow) -> str:
    mean = overall.delta.mean
    if mean is None:
        return "Some losses are not finite."
    if mean == overall.delta.high == 0:
        return f"The two have the same loss on each of {overall.examples} held-out sequences."
    better = "lower" if mean < 0 else "higher"
    return (
        f"b's held-out loss is {better}: {wording.format_effect(overall.delta)} nats a token over "
        f"{overall.examples} sequences; b is better on {format_percent(overall.better)} of them. "
        "The interval is over sequences: it applies to these two networks only, not to other seeds."
    )


def _divergence_text(quantity: str, point: diff_types.DivergencePoint, unit: str) -> str:
    if not point.compared:
        return f"The two runs have no {unit} in common."
    span = f"{point.compared} {unit}, {point.first} to {point.last}"
    if point.bitwise is None:
        return f"The {quantity} of the two runs are bitwise equal throughout ({span})."
    if point.relative is None:
        later = ", never by more than a millionth"
    elif point.relative > point.bitwise:
        later = f", by more than a millionth at step {point.relative}"
    else:
        later = ""
    return f"The {quantity} of the two runs first differ at step {point.bitwise}{later} ({span})."


def sides(diff: diff_types.CheckpointDiff) -> Table:
    """Return one row per checkpoint: run, step, tokens, parameters."""
    rows = (
        (letter, side.path, str(side.step), format_count(side.tokens), format_count(side.parameters))
        for letter, side in (("a", diff.a), ("b", diff.b))
    )
    return make_table(("", "run", "step", "tokens", "parameters"), rows, left=2)


def weights(diff: diff_types.WeightDiff) -> Table:
    """Return one row per parameter over all its layers, and a last row for all shared parameters."""
    columns = ("parameter", "layers", "size", "||a||", "||b||", "||b−a||/||a||", "by layer", "cosine")
    rows = [
        (label(row.kind), str(row.layers), *_distance(row.distance, row.low, row.high)) for row in diff.kinds
    ]
    content = make_table(columns, [*rows, ("all shared", "", *_distance(diff.total))])
    has_layers = any(row.layers > 1 for row in diff.kinds)
    return content if has_layers else drop_columns(content, ("layers", "by layer"))


def _distance(
    distance: diff_types.Distance, low: float | None = None, high: float | None = None
) -> tuple[str, ...]:
    norms = map(format_number, (distance.norm_a, distance.norm_b, distance.relative))
    spread = "" if low == high else f"{format_number(low, 2)} to {format_number(high, 2)}"
    return format_count(distance.parameters), *norms, spread, format_number(distance.cosine, 4)


def label(name: str) -> str:
    """Return a short name: `layers.*.attention.query` as `attention.query`."""
    return name.removeprefix(IN_LAYERS)


def one_sided(diff: diff_types.WeightDiff) -> Table:
    """Return the parameters whose shapes differ, with the number of layers that have these shapes."""
    counts = Counter(
        (label(param_group(param.path)), param.shape_a, param.shape_b) for param in diff.one_sided
    )
    rows = ((name, str(count), _shape(a), _shape(b)) for (name, a, b), count in counts.items())
    return make_table(("parameter", "times", "shape in a", "shape in b"), rows)


def _shape(shape: tuple[int, ...] | None) -> str:
    return MISSING if shape is None else " × ".join(map(str, shape))


def next_token_table(rows: tuple[diff_types.PredictionRow, ...]) -> Table:
    """Return one row per domain: KL divergences in nats a token, and the share of equal top tokens."""
    columns = ("domain", "tokens", "KL(a||b)", "KL(b||a)", "same top token")
    cells = (
        (row.domain, format_count(row.tokens), format_number(row.kl_ab),
         format_number(row.kl_ba), format_percent(row.agreement))
        for row in rows
    )  # fmt: skip
    return make_table(columns, cells)


def losses(rows: tuple[diff_types.LossRow, ...], overall: diff_types.LossRow | None) -> Table:
    """Return one row per domain, and a row for their mean if there are several."""
    columns = ("domain", "n", "a", "b", "b − a [95 % interval]", "b better on")
    cells = (
        (row.domain, str(row.examples), format_loss(row.loss_a), format_loss(row.loss_b),
         wording.format_effect(row.delta), format_percent(row.better))
        for row in [*rows, *([overall] if overall and len(rows) > 1 else [])]
    )  # fmt: skip
    return make_table(columns, cells)


def distance_table(steps: tuple[diff_types.StepDistance, ...]) -> Table:
    """Return the distance of the weights at each step."""
    columns = ("step", "||b−a||/||a||", "cosine")
    cells = (
        (str(point.step), format_number(point.distance.relative), format_number(point.distance.cosine, 4))
        for point in steps
    )
    return make_table(columns, cells)
