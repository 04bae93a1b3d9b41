"""`harness compare`: of sweeps and of curves from elsewhere, on the screen and beside the files."""

from __future__ import annotations

import dataclasses
import json

import polars as pl
import pytest

from harness import cli
from harness.compare import compare_curves
from harness.compare.context.fairness import fairness_rows
from harness.compare.inputs.run_records import read_runs
from harness.compare.results.to_json import to_json
from harness.core import atomic_files
from harness.report.tables import comparison_tables as tables
from harness.report.tables.markdown import markdown
from tests.compare.synthetic import Recipe, write_sweep
from tests.compare.test_compare_curves import log
from tests.report.example import comparison
from tests.report.test_page import Reader
from tests.report.test_terminal import shown

EFFECTS = {"mha": 1.0, "hybrid": 1.04}


@pytest.fixture
def files(tmp_path):
    """A log in two files, one a variant, with branches nowhere and two domains everywhere."""
    table = log(scales=("s", "xs")).with_columns(parameters=pl.when(scale="s").then(3e6).otherwise(1e6))
    names = [tmp_path / "first.v1.csv", tmp_path / "second.parquet"]
    table.filter(variant="a").write_csv(names[0])
    table.filter(variant="b").write_parquet(names[1])
    return [str(name) for name in names]


def test_curves_are_judged_as_in_python(files, capsys):
    assert cli.main(["compare", "--curves", *files, "--control", "b", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["experiment"] == "first.v1"
    assert told["ladder"] == to_json(compare_curves(files, control="b"))["ladder"]


def test_the_report_of_curves_lies_beside_the_first_file(files, tmp_path, capsys):
    assert cli.main(["compare", "--curves", *files, "--decayed", "last", "--html", "--pictures"]) == 0
    out, err = capsys.readouterr()
    assert "B_BETTER" in out
    written = {tmp_path / "first.v1.report.html"} | {
        tmp_path / "first.v1.pictures" / f"{name}.{kind}"
        for name in ("curves", "deltas")
        for kind in ("svg", "png")
    }
    assert {*err.split()} == {str(path) for path in written}
    assert all(path.stat().st_size > 5_000 for path in written)
    assert {*tmp_path.rglob("*.*")} - written == {tmp_path / "first.v1.pictures", *map(type(tmp_path), files)}


def test_the_page_of_curves_says_what_it_is_of(files, tmp_path):
    assert cli.main(["compare", "--curves", *files, "--html"]) == 0
    page = (tmp_path / "first.v1.report.html").read_text()
    reader = Reader(page)
    assert reader.texts["h2"] == [
        "Fairness",
        "Ladder",
        "Loss curves",
        "Differences",
        "Domains",
        "Flags",
        "Provenance",
    ]
    assert all(file in reader.text("main") for file in files)
    assert "held-out" not in reader.text("main")
    assert reader.texts["option"] == ["tokens", "step", "model FLOPs"]
    assert page.count('"curves":{') == 1


def test_the_panels_hold_the_rows_of_the_log(files):
    from harness.compare.compare_curves import read_curve_inputs
    from harness.compare.judge import judge
    from harness.report.frames.log_frames import log_frames

    evidence = read_curve_inputs(files)
    content = log_frames("log", evidence.runs, judge(evidence))
    keys = ["scale", "variant", "seed", "step"]
    plain = log(scales=("s", "xs")).sort(keys)
    assert (
        content.losses.sort(keys)
        .select(*keys, "tokens", "loss")
        .equals(plain.select(*keys, "tokens", "loss"))
    )
    assert content.losses["smooth"].equals(content.losses["loss"].alias("smooth"))
    assert content.evals.filter(phase="decayed")["step"].unique().to_list() == [100]
    assert (content.scales, content.variants) == (["xs", "s"], ["a", "b"])


def test_markdown_is_printed_for_sweeps_and_for_curves(files, tmp_path, capsys):
    sweep = write_sweep(tmp_path / "sweep", Recipe(variants=EFFECTS, with_steps=False))
    assert cli.main(["compare", str(sweep.path), str(sweep.path), "--markdown"]) == 0
    assert capsys.readouterr().out.count("\n### Fairness\n") == 2
    assert cli.main(["compare", "--curves", *files, "--markdown"]) == 0
    assert capsys.readouterr().out == markdown(compare_curves(files, experiment="first.v1"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give either sweeps or --curves FILE..."),
        (["runs/x", "--curves", "a.csv"], "give either sweeps or --curves"),
        (["runs/x", "--control", "mha"], "--control goes with --curves"),
        (["runs/x", "--slope", ".2"], "--slope goes with --curves"),
        (["runs/x", "--margin-nats", ".01"], "--margin-nats goes with --curves"),
        (["runs/x", "--json", "--markdown"], "not allowed with"),
        (["runs/x", "--jsn"], "unknown option --jsn; did you mean"),
        (["--curves", "absent.csv"], "absent.csv: cannot be read"),
    ],
)
def test_mistakes_are_one_sentence(arguments, said, capsys):
    assert cli.main(["compare", *arguments]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert (out, err.count("\n")) == ("", 1)


def test_a_place_that_cannot_be_written_is_one_sentence(files, tmp_path, capsys):
    (tmp_path / "first.v1.pictures").write_text("in the way")
    assert cli.main(["compare", "--curves", *files, "--pictures"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


TUNING = {
    "mha": {
        "points": 3,
        "edge": False,
        "seed": 99,
        "learning_rate": 0.0031,
        "curve": [[0.002, 3.0], [0.004, 2.9]],
    },
    "hybrid": {
        "points": 3,
        "edge": True,
        "learning_rate": 0.008,
        "curve": [[0.004, 2.8], [0.008, 2.7], [0.016, None]],
    },
}


@pytest.fixture
def tuned(tmp_path):
    sweep = write_sweep(tmp_path / "tuned", Recipe(variants=EFFECTS, seeds=(0, 1), with_steps=False))
    atomic_files.write_json(sweep.rule, atomic_files.read_json(sweep.rule) | {"tuning": TUNING})
    return sweep


def test_tuning_is_said_in_the_fairness_table(tuned):
    rows = fairness_rows(
        read_runs(tuned), ["xs"], "mha", TUNING | {"mha": TUNING["mha"] | {"curve": [["x"]]}}
    )
    assert [row.tuning for row in rows] == [
        "lr 0.0031 of 3 points, seed 99",
        "lr 0.008 of 3 points, optimum at the edge",
    ]
    assert [bool(row.curve) for row in rows] == [False, True]


def test_the_curve_of_the_tuning_is_shown_everywhere(tuned, capsys):
    assert cli.main(["compare", str(tuned.path), "--html"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[lines.index(["learning", "rate", "mha", "hybrid"]) + 1 :][:4] == [
        ["0.002", "3.0000"],
        ["0.004", "2.9000", "*", "2.8000"],
        ["0.008", "2.7000", "*"],
        ["0.016", "diverged"],
    ]
    assert "0.016 diverged" in Reader(tuned.report.read_text()).text("main")
    assert cli.main(["compare", str(tuned.path), "--markdown"]) == 0
    assert "| 0.016 |  | diverged |" in capsys.readouterr().out
    assert cli.main(["compare", str(tuned.path), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["fairness"][-1]
    assert row["curve"] == TUNING["hybrid"]["curve"]


def test_without_tuning_there_is_no_such_table():
    assert not tables.tuning(comparison())
    assert "Learning rates" not in shown(comparison(), 100)
    assert "Learning rates" not in markdown(comparison())


def test_what_a_log_does_not_say_is_not_shown_as_zero():
    bare = compare_curves(log())
    assert {row[2:4] for row in tables.fairness(bare).rows} == {("–", "–")}
    sized = dataclasses.replace(bare.fairness[0], non_embedding=1_000_000, flops_per_token=6e6)
    told = tables.fairness(dataclasses.replace(bare, fairness=(sized,)))
    assert told.rows[0][2:4] == ("1M", "6M")
