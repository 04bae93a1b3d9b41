"""Tables and picture of a diff that is made by hand."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from harness.compare.checkpoints.diff_types import (
    CheckpointDiff,
    CheckpointRef,
    Divergence,
    PredictionDiff,
    StepDistance,
)
from harness.compare.checkpoints.distances import (
    compare_tokens,
    compare_weights,
    divergence_point,
    loss_row,
    mean_over_domains,
    prediction_row,
    weight_divergence_point,
)
from harness.report.checkpoint_diff import histogram_rows, print_diff, write_diff_pictures

HOSTILE = "[bold]x[/]\x1b[31m"
RNG = np.random.default_rng(0)


def drawn(layers: int, shift: float = 0.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    names = ("attention.query_norm.gain", "attention.key", "feedforward.gate")
    paths = [f"layers.{i}.{name}" for i in range(layers) for name in names]
    return {path: rng.normal(size=20) + shift * k for k, path in enumerate(["embedding", *paths])}


def made(
    shift: float = 0.01, layers: int = 12, domains: tuple[str, ...] = ("code", "prose")
) -> CheckpointDiff:
    a, b = drawn(layers), drawn(layers, shift) | ({"extra": np.ones(3)} if shift else {})
    steps = [StepDistance(step, compare_weights(a, drawn(layers, shift * step)).total) for step in (1, 2, 4)]
    logits, losses = RNG.normal(size=(2, 50, 9)), RNG.normal(4, 0.1, (2, 60))
    second = int(bool(shift))
    rows = tuple(loss_row(domain, losses[0], losses[second] + shift) for domain in domains)
    function = PredictionDiff(
        tuple(prediction_row(domain, 5, compare_tokens(logits[0], logits[second])) for domain in domains),
        rows,
        mean_over_domains(rows) if rows else None,
    )
    curve, other = np.linspace(5, 4, 30), np.linspace(5, 4 + shift, 30)
    span = np.arange(1, 31)
    return CheckpointDiff(
        CheckpointRef("xs/mha/seed0@100", "runs/attention/xs/mha/seed0", 100, 51_200, 28_896, "1"),
        CheckpointRef("xs/hybrid/seed0@100", "runs/attention/xs/hybrid/seed0", 100, 51_200, 28_896, "1"),
        compare_weights(a, b),
        function,
        Divergence(
            divergence_point(span, curve, span, other), weight_divergence_point(steps), tuple(steps), True
        ),
        (),
        ("A note.",),
    )


def printed(diff: CheckpointDiff, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_diff(diff, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 140])
def test_every_line_fits(width):
    text = printed(made(), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert "b, xs/hybrid/seed0@100, against a, xs/mha/seed0@100" in text
    assert "A note." in text


def test_what_differs_is_said_in_numbers():
    text = " ".join(printed(made(0.5), 300).split())
    assert "The training losses of the two runs first differ at step 2 (30 steps, 1 to 30)." in text
    assert "extra 1 – 3" in text
    assert "nats a token over 120 sequences" in text
    assert "these two networks only" in text


def test_what_is_equal_is_said():
    text = " ".join(printed(made(0.0), 300).split())
    assert "All parameters are shared by path and shape: bitwise equal." in text
    assert "the same loss on each of 120 held-out sequences" in text
    assert "The training losses of the two runs are bitwise equal throughout" in text


def test_layers_with_the_same_two_shapes_are_counted():
    a = {f"layers.{i}.w": np.ones((2, 3)) for i in range(4)}
    b = {f"layers.{i}.w": np.ones((2, 1 if i else 5)) for i in range(4)}
    text = " ".join(printed(dataclasses.replace(made(), weights=compare_weights(a, b))).split())
    assert "w 1 2 × 3 2 × 5" in text
    assert "w 3 2 × 3 2 × 1" in text


def test_nothing_shared_is_not_called_equal():
    nothing = compare_weights({"x": np.ones(2)}, {"y": np.ones(2)})
    text = printed(dataclasses.replace(made(), weights=nothing))
    assert "No parameter is shared by path and shape." in text
    assert "bitwise equal." not in text


def test_a_refusal_stands_in_the_place_of_the_function():
    text = printed(dataclasses.replace(made(), function=PredictionDiff(refused=f"because {HOSTILE}")))
    assert "Predictions were not compared: because [bold]x[/]?[31m." in text
    assert "held-out loss" not in text
    assert "\x1b" not in text


def test_names_do_nothing_in_a_terminal():
    diff = made(domains=(HOSTILE,))
    text = printed(dataclasses.replace(diff, a=dataclasses.replace(diff.a, path=HOSTILE)))
    assert "\x1b" not in text
    assert text.count("[bold]x[/]") == 3


def test_two_steps_of_one_run_are_a_path():
    diff = made()
    steps = diff.divergence.checkpoints
    text = printed(dataclasses.replace(diff, divergence=None, along=steps))
    assert "Along the run: distance from step 100" in text
    assert "first differ" not in text


def test_the_picture_is_written_as_png_and_svg(tmp_path):
    written = write_diff_pictures(made(), tmp_path / "pictures")
    name = "diff_xs-mha-seed0-100_xs-hybrid-seed0-100"
    assert [path.name for path in written] == [f"{name}.svg", f"{name}.png"]
    assert written[1].read_bytes().startswith(b"\x89PNG")
    for label in ("attention.query_norm.gain", "prose", "KL divergence"):
        assert label in written[0].read_text()


def test_bars_count_every_example_and_part_at_zero():
    diff = made()
    rows = histogram_rows(diff.function.losses)
    bars = rows.filter(kind="bar")
    for row in diff.function.losses:
        own = bars.filter(label=row.domain)
        assert own["value"].sum() == row.examples
        assert own.filter(variant="b")["value"].sum() == row.better * row.examples
    assert (bars.filter(variant="b")["high"] < 1e-12).all()
    assert (bars.filter(variant="a")["low"] > -1e-12).all()
    effect = rows.filter(kind="effect")["low", "mean", "high"].row(0)
    delta = diff.function.losses[0].delta
    assert effect == (delta.low, delta.mean, delta.high)


@pytest.mark.parametrize(
    "diff", [made(0.0), made(layers=1), made(domains=())], ids=["equal", "one layer", "refused"]
)
def test_there_is_a_picture_of_every_diff(diff, tmp_path):
    assert all(path.stat().st_size > 5_000 for path in write_diff_pictures(diff, tmp_path))
