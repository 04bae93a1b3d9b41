"""What two checkpoints say of each other, in sentences and as tables of plain text cells."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from harness.compare.checkpoints.diff_types import (
    CheckpointDiff,
    Distance,
    FunctionRow,
    LossRow,
    Onset,
    Side,
    StepDistance,
    Weights,
)
from harness.compare.checkpoints.distances import kind
from harness.core import number_format
from harness.report.tables import wording
from harness.report.tables.text_table import Table, table, without

IN_LAYERS = "layers.*."


def headline(diff: CheckpointDiff) -> str:
    return number_format.plain_text(f"b, {diff.b.name}, against a, {diff.a.name}")


def summary(diff: CheckpointDiff) -> Iterator[str]:
    """Weights, function, losses, and where the runs part, a sentence each."""
    yield _weights_in_words(diff)
    if diff.function.refused:
        yield number_format.plain_text(f"Not compared by what they answer: {diff.function.refused}.")
    if diff.function.overall:
        yield _losses_in_words(diff.function.overall)
    if diff.divergence:
        yield _parting("training losses", diff.divergence.losses, "steps")
        if diff.divergence.weights.compared:
            yield _parting("shared weights", diff.divergence.weights, "checkpoints of equal step")
        if diff.divergence.same_examples is not None:
            same = "the same" if diff.divergence.same_examples else "other"
            yield f"Up to their last common checkpoint the two runs had read {same} examples."


def _weights_in_words(diff: CheckpointDiff) -> str:
    total, count = diff.weights.total, number_format.count(diff.weights.total.parameters)
    shared = "All parameters are shared by path and shape"
    if diff.weights.one_sided:
        in_a, in_b = (number_format.count(side.parameters) for side in (diff.a, diff.b))
        of = f"of {in_a} in a and {in_b} in b"
        shared = f"{count} parameters are shared by path and shape, {of}"
    if not total.parameters:
        return "No parameter is shared by path and shape."
    if total.equal:
        return f"{shared}: bitwise equal."
    cosine = number_format.number(total.cosine, 4)
    return f"{shared}: b is {percent(total.relative)} of a's norm away, cosine {cosine}."


def _losses_in_words(overall: LossRow) -> str:
    mean = overall.delta.mean
    if mean is None:
        return "The losses are not all numbers."
    if mean == overall.delta.high == 0:
        return f"The two have the same loss on each of {overall.examples} held-out sequences."
    better = "lower" if mean < 0 else "higher"
    return (
        f"b's held-out loss is {better}: {wording.effect(overall.delta)} nats a token over "
        f"{overall.examples} sequences; b is better on {percent(overall.better)} of them. The interval is "
        "over sequences: it speaks of these two networks only, not of other seeds."
    )


def _parting(what: str, found: Onset, unit: str) -> str:
    if not found.compared:
        return f"The two runs have no {unit} in common."
    span = f"{found.compared} {unit}, {found.first} to {found.last}"
    if found.bitwise is None:
        return f"The {what} of the two runs are bitwise equal throughout ({span})."
    if found.relative is None:
        later = ", never by more than a millionth"
    elif found.relative > found.bitwise:
        later = f", by more than a millionth at step {found.relative}"
    else:
        later = ""
    return f"The {what} of the two runs first differ at step {found.bitwise}{later} ({span})."


def sides(diff: CheckpointDiff) -> Table:
    return table(
        ("", "run", "step", "tokens", "parameters"), map(_side, ("a", "b"), (diff.a, diff.b)), left=2
    )


def _side(letter: str, side: Side) -> tuple[str, ...]:
    return (
        letter,
        side.path,
        str(side.step),
        number_format.count(side.tokens),
        number_format.count(side.parameters),
    )


def weights(found: Weights) -> Table:
    """One row a parameter over all its layers, the whole last."""
    columns = ("parameter", "layers", "size", "||a||", "||b||", "||b−a||/||a||", "by layer", "cosine")
    rows = [
        (label(each.kind), str(each.layers), *_distance(each.distance, _range(each.low, each.high)))
        for each in found.kinds
    ]
    content = table(columns, [*rows, ("all shared", "", *_distance(found.total, ""))])
    several = any(each.layers > 1 for each in found.kinds)
    return content if several else without(content, ("layers", "by layer"))


def _distance(found: Distance, spread: str) -> tuple[str, ...]:
    return (
        number_format.count(found.parameters),
        number_format.number(found.norm_a),
        number_format.number(found.norm_b),
        number_format.number(found.relative),
        spread,
        number_format.number(found.cosine, 4),
    )


def _range(low: float | None, high: float | None) -> str:
    return "" if low == high else f"{number_format.number(low, 2)} to {number_format.number(high, 2)}"


def label(name: str) -> str:
    """`layers.*.attention.query` as `attention.query`."""
    return name.removeprefix(IN_LAYERS)


def one_sided(found: Weights) -> Table:
    """One row a parameter, with how many of its layers have these two shapes."""
    counts = Counter((label(kind(each.path)), each.shape_a, each.shape_b) for each in found.one_sided)
    rows = ((name, str(count), _shape(a), _shape(b)) for (name, a, b), count in counts.items())
    return table(("parameter", "times", "shape in a", "shape in b"), rows)


def _shape(shape: tuple[int, ...] | None) -> str:
    return number_format.NONE if shape is None else " × ".join(map(str, shape))


def probe(rows: tuple[FunctionRow, ...]) -> Table:
    columns = ("domain", "tokens", "KL(a||b)", "KL(b||a)", "same top token")
    cells = (
        (row.domain, number_format.count(row.tokens), number_format.number(row.kl_ab),
         number_format.number(row.kl_ba), percent(row.agreement))
        for row in rows
    )  # fmt: skip
    return table(columns, cells)


def losses(rows: tuple[LossRow, ...], overall: LossRow | None) -> Table:
    """One row a domain, and where there are several their mean."""
    columns = ("domain", "n", "a", "b", "b − a [95 % interval]", "b better on")
    cells = (
        (row.domain, str(row.examples), number_format.loss(row.loss_a), number_format.loss(row.loss_b),
         wording.effect(row.delta), percent(row.better))
        for row in [*rows, *([overall] if overall and len(rows) > 1 else [])]
    )  # fmt: skip
    return table(columns, cells)


def along(steps: tuple[StepDistance, ...]) -> Table:
    columns = ("step", "||b−a||/||a||", "cosine")
    cells = (
        (
            str(each.step),
            number_format.number(each.distance.relative),
            number_format.number(each.distance.cosine, 4),
        )
        for each in steps
    )
    return table(columns, cells)


def percent(share: float | None) -> str:
    return number_format.NONE if share is None or not math.isfinite(share) else f"{100 * share:.3g} %"
