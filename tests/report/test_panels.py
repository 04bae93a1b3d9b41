"""The panels hold what the runs wrote: everything is read again here, by other means."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from harness.compare.results.comparison import Comparison
from harness.records.paths import SweepDir
from harness.report.charts import loss_difference, marks, panels, theme
from harness.report.frames import sweep_frames
from harness.report.frames.sweep_frames import Frames


@pytest.fixture(scope="module")
def content(sweep: SweepDir, told: Comparison) -> Frames:
    return sweep_frames.read_frames(sweep, told)


@pytest.fixture(scope="module")
def drawn(told: Comparison, content: Frames) -> dict[str, panels.Spec]:
    return panels.panel_specs(told, content)


def rows_of(spec: panels.Spec) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(spec["data"]["values"])))


def parquet(sweep: SweepDir, scale: str, variant: str, seed: int, kind: str) -> list[dict]:
    folder = sweep.path / scale / variant / f"seed{seed}" / "metrics"
    return pl.concat([pl.read_parquet(p) for p in sorted(folder.glob(f"{kind}-*"))]).to_dicts()


def test_specifications_are_valid(told: Comparison, content: Frames):
    for chart in (
        panels.ladder_chart(told, content),
        panels.loss_curves(content),
        loss_difference.loss_differences(told, content),
    ):
        assert chart is not None
        chart.to_dict(validate=True)


def test_no_specification_names_a_colour(drawn):
    for spec in drawn.values():
        assert not re.search(r'"#[0-9a-fA-F]{3,8}"', json.dumps(spec))


def test_colours_follow_the_variants_and_the_control_is_grey(drawn):
    domains = {
        tuple(d) for spec in drawn.values() for d in re.findall(r'"domain": \[(.*?)\]', json.dumps(spec))
    }
    assert len(domains) == 1
    assert drawn["curves"]["spec"]["layer"][0]["encoding"]["color"]["scale"]["domain"][0] == "mha"
    for tone in (theme.LIGHT, theme.DARK):
        red, green, blue = (int(tone["variants"][0][i : i + 2], 16) for i in (1, 3, 5))
        assert max(red, green, blue) - min(red, green, blue) < 24


def test_up_is_better_in_every_comparison_and_the_axes_say_so(drawn):
    assert _y_titles(drawn["ladder"]["spec"]) == {"k, multiplier of tokens, better →"}
    for row in drawn["deltas"]["vconcat"]:
        assert _y_titles(row["spec"]) == {"ΔL held-out (nats a token), better →"}
        scales = [layer["encoding"]["y"].get("scale") for layer in row["spec"]["layer"]]
        assert {"reverse": True} in scales, "a negative difference, which is better, lies above"
    assert _y_titles(drawn["curves"]["spec"]) == {"← better, training loss (nats a token)"}


def _y_titles(spec) -> set[str]:
    encodings = [layer["encoding"]["y"] for layer in spec["layer"]]
    titles = [encoding.get("title") or (encoding.get("axis") or {}).get("title") for encoding in encodings]
    return {title for title in titles if title}


@pytest.mark.parametrize("tone", [theme.LIGHT, theme.DARK])
def test_a_colour_of_a_variant_is_no_colour_of_a_part(tone):
    config = theme.vega_config(tone)
    assert config["range"]["category"] == tone["variants"]
    assert not {*config["range"][theme.PARTS]} & {*tone["variants"]}
    assert len({*tone["parts"]}) == len(tone["parts"])


def test_curves_hold_the_losses_that_were_written(sweep: SweepDir, drawn):
    rows = rows_of(drawn["curves"])
    assert len({(r["scale"], r["variant"], r["seed"]) for r in rows}) == 27
    for scale, variant, seed in (("xs", "mha", 0), ("m", "short", 2)):
        told = {
            int(r["step"]): r
            for r in rows
            if (r["scale"], r["variant"], r["seed"]) == (scale, variant, str(seed))
        }
        assert {1, 400} <= told.keys()
        assert len(told) <= 300
        for row in parquet(sweep, scale, variant, seed, "steps"):
            if row["step"] in told:
                for name in ("loss", "tokens", "flops", "device_seconds"):
                    assert float(told[row["step"]][name]) == pytest.approx(row[name], rel=1e-5)


def test_smoothing_is_the_mean_of_a_centred_window():
    values = np.random.default_rng(0).normal(size=200)
    values[[30, 31]] = np.nan, np.inf
    for i, smooth in enumerate(sweep_frames.smooth_curve(values)):
        half = min(4, i // 4)
        window = [v for v in values[max(0, i - half) : i + half + 1] if math.isfinite(v)]
        assert smooth == pytest.approx(np.mean(window)) if window else math.isnan(smooth)


def test_differences_are_those_of_the_runs(sweep: SweepDir, drawn):
    for panel, variant in zip(drawn["deltas"]["vconcat"], ("hybrid", "short"), strict=True):
        seeds = [r for r in rows_of(panel) if r["kind"] == "seed" and r["phase"] != "branch"]
        means = [r for r in rows_of(panel) if r["kind"] == "mean" and r["phase"] != "branch"]
        assert (len(seeds), len(means)) == (3 * 3 * 8, 3 * 8)
        for scale in ("xs", "m"):
            expected = [_differences(sweep, scale, variant, seed) for seed in range(3)]
            for row in seeds:
                if row["scale"] == scale:
                    assert float(row["mean"]) == pytest.approx(
                        expected[int(row["seed"])][float(row["tokens"])], rel=1e-4
                    )
            for row in means:
                if row["scale"] == scale:
                    at = [by_tokens[float(row["tokens"])] for by_tokens in expected]
                    assert float(row["mean"]) == pytest.approx(np.mean(at), rel=1e-4)
                    half = 4.302653 * np.std(at, ddof=1) / math.sqrt(3)
                    assert float(row["high"]) - float(row["low"]) == pytest.approx(2 * half, rel=1e-2)


def _differences(sweep: SweepDir, scale: str, variant: str, seed: int) -> dict[float, float]:
    """Mean over domains of treatment minus control, by tokens."""
    sums: dict[float, list[float]] = {}
    for name, sign in ((variant, 1), ("mha", -1)):
        for row in parquet(sweep, scale, name, seed, "evals"):
            sums.setdefault(row["tokens"], []).append(sign * row["loss"] / 2)
    return {tokens: sum(values) for tokens, values in sums.items()}


def test_branches_stand_as_decayed_points_of_their_own(drawn):
    rows = rows_of(drawn["deltas"]["vconcat"][0])
    branch = [r for r in rows if r["phase"] == "branch" and r["kind"] == "mean"]
    end = [r for r in rows if r["phase"] == "decayed" and r["kind"] == "mean"]
    assert len(branch) == len(end) == 3
    assert float(branch[0]["tokens"]) < max(float(r["tokens"]) for r in end)


def test_the_ladder_shows_each_rung_with_its_interval(told: Comparison, drawn):
    rows = [r for r in rows_of(drawn["ladder"]) if r["kind"] == "rung"]
    expected = [rung for rung in told.rungs if rung.k]
    assert len(rows) == len(expected) == 6
    for row, rung in zip(rows, expected, strict=True):
        assert rung.k
        assert (row["variant"], row["scale"]) == (rung.variant, rung.scale)
        for name in ("k", "low", "high"):
            assert float(row[name]) == pytest.approx(getattr(rung.k, name), rel=1e-5)


def test_the_line_of_the_trend_ends_in_the_projection_and_the_bet_stands_at_the_target(
    drawn, told: Comparison
):
    rows = [r for r in rows_of(drawn["ladder"]) if r["variant"] == "short"]
    line = [r for r in rows if r["kind"] == "trend"]
    (ladder,) = [item for item in told.ladder if item.variant == "short"]
    assert ladder.projection
    assert ladder.bet
    assert float(line[-1]["k"]) == pytest.approx(ladder.projection.k, rel=1e-5)
    (bet,) = [r for r in rows if r["kind"] == "bet"]
    estimate = ladder.bet.estimate
    ends = [math.log(float(bet[name])) for name in ("k", "low", "high")]
    assert ends == pytest.approx([estimate.log_k, estimate.low, estimate.high], rel=1e-4)
    assert float(bet["flops"]) == pytest.approx(estimate.target_flops)
    assert float(line[0]["k"]) < float(line[-1]["k"]), "a shrinking disadvantage rises towards 1"


def test_values_that_are_not_finite_leave_gaps(content: Frames):
    broken = content.losses.with_columns(
        loss=pl.when(pl.col("seed") == 0)
        .then(float("nan"))
        .when(pl.col("seed") == 1)
        .then(float("inf"))
        .otherwise("loss")
    )
    values = marks.inline_csv(broken).to_dict()["values"]
    assert "nan" not in values.lower()
    assert "inf" not in values.lower()


def test_one_seed_has_no_band(told: Comparison, content: Frames):
    single = content.evals.filter(seed=0)
    means = sweep_frames.mean_deltas(sweep_frames.paired_deltas(single, "mha"))
    assert means["low"].null_count() == means.height
    assert "no band" in loss_difference.legend(means.with_columns(kind=pl.lit("mean")))


def test_nothing_to_draw_is_no_panel(tmp_path: Path, told: Comparison):
    empty = sweep_frames.read_frames(SweepDir(tmp_path), told)
    assert panels.loss_curves(empty) is None
    assert loss_difference.loss_differences(told, empty) is None
