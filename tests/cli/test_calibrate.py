"""`harness plan --accuracy`: what it says of what is on record, and of published rows."""

from __future__ import annotations

import csv
import dataclasses
import io
import math

import pytest
from rich.console import Console

from harness import cli
from harness.cli.views.prediction_accuracy import LISTED, measure_accuracy, print_accuracy
from harness.core.interval import Interval
from harness.launcher.cost import prediction_log
from harness.launcher.cost.prediction_log import MIN_LAUNCHES, Correction, PredictionLog, apply_correction
from harness.launcher.cost.step_cost import ASSUMED, estimate_run
from harness.launcher.placement.forecast import RunEstimator, forecast
from harness.launcher.runs import Run, make_blocks, run_dir, sweep_dir
from harness.plan.plan_local import plan_on_this_machine
from harness.plan.validation import HeldOutPrediction, cross_validate, predict_published_rows
from tests.launcher import support
from tests.launcher.test_prediction_log import made
from tests.plan.test_published import ROW
from tests.schemas.valid import check_output


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def launches(count: int, ratio: float = 1.5) -> list[prediction_log.Prediction]:
    ratios = [(str(index), 0.2 * ratio) for index in range(count)]
    return [
        made(f"xs/mha/seed{name}", launch=name, raw=0.2, high=0.4, measured=took) for name, took in ratios
    ]


def shown(kept: PredictionLog, width: int = 110) -> str:
    output = io.StringIO()
    console = Console(width=width, force_terminal=False, file=output)
    print_accuracy(kept, measure_accuracy(kept), console)
    return output.getvalue()


def test_json_has_the_judgement_what_is_used_and_the_runs(capsys):
    prediction_log.append_predictions(launches(MIN_LAUNCHES))
    assert cli.main(["plan", "--accuracy", "--json"]) == 0
    said = check_output(capsys.readouterr().out, "plan_accuracy")
    assert said.keys() == {"schema", "machines", "runs", "skipped"}
    (machine,) = said["machines"]
    assert (machine["runs"], machine["launches"], machine["inside"]) == (9, 9, 1.0)
    assert machine["median"] == pytest.approx(1 / 3)
    assert machine["now"] == {"factor": pytest.approx(1.5), "spread": pytest.approx(0), "launches": 9}
    assert [run["run"] for run in said["runs"]] == [each.run for each in launches(MIN_LAUNCHES)]


@pytest.mark.parametrize("width", [80, 130])
def test_the_terminal_says_how_good_what_is_used_and_the_newest(width):
    few, enough = launches(MIN_LAUNCHES - 1), [dataclasses.replace(e, machine="other") for e in launches(12)]
    text = shown(PredictionLog((*few, *enough), 2), width)
    flat = " ".join(text.split())
    assert "cpu x 2, earlier runs on this machine: a plan does not correct predictions" in flat
    assert f"needs {MIN_LAUNCHES} launches, and there are {MIN_LAUNCHES - 1}." in flat
    assert "other, earlier runs on this machine: a plan multiplies predictions by 1.50" in flat
    blocks = 2 if width == 80 else 1
    assert text.count("trial/xs/mha/seed") == LISTED * blocks, "the names stand beside each block of columns"
    assert all(column in text for column in ("ended", "devices", "raw", "measured"))
    assert "seed11" in text
    assert "2 lines are damaged or of another version" in flat
    assert all(len(line) <= width for line in text.splitlines())


def test_what_is_not_there_is_one_sentence(capsys):
    assert cli.main(["plan", "--accuracy"]) == 2
    assert "no finished run is on record. Train a sweep" in capsys.readouterr().err
    prediction_log._path().write_text("{\nnot json\n")
    assert cli.main(["plan", "--accuracy", "--json"]) == 2
    error = capsys.readouterr().err
    assert "(2 damaged or of another version)" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"", "0 rows have a step time, of 0 sources"),
        (b"id,chips\n\xff\xfe,3\n", "Give a CSV file with one published run a row."),
        (b"id,source,chips,chip\na,b,3,H100\n", "params_B"),
        ({"step_time_s": 9.0}, "1 rows have a step time, of 1 sources"),
    ],
)
def test_a_file_that_tells_nothing_is_one_sentence(tmp_path, capsys, content, said):
    if isinstance(content, bytes):
        (tmp_path / "rows.csv").write_bytes(content)
    elif content is not None:
        write(tmp_path / "rows.csv", [content])
    assert cli.main(["plan", "--accuracy", "rows.csv"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_it_takes_no_overrides(capsys):
    assert cli.main(["plan", "seed=0", "--accuracy"]) == 2
    assert "leave out seed=0" in capsys.readouterr().err


def write(path, rows) -> None:
    with path.open("w", newline="") as file:
        told = [ROW | row for row in rows]
        writer = csv.DictWriter(file, sorted({key for row in told for key in row}))
        writer.writeheader()
        writer.writerows(told)


def test_a_published_row_is_predicted_from_other_sources(tmp_path, capsys):
    """With one row of each of two sources, each is predicted to be as far off as the other was."""
    rows = [
        {"id": "a", "source": "one/x", "step_time_s": 8},
        {"id": "b", "source": "two/y", "step_time_s": 16},
    ]
    write(tmp_path / "rows.csv", rows)
    assert cli.main(["plan", "--accuracy", "rows.csv", "--json"]) == 0
    said = check_output(capsys.readouterr().out, "plan_published")
    one, two = said["runs"]
    assert (one["run"], one["source"], one["published"]) == ("a", "one/x", 8)
    assert one["raw"] == two["raw"]
    assert (one["value"], two["value"]) == pytest.approx((16, 8))
    assert said["fitted"]["factor"] == pytest.approx(math.sqrt(8 * 16) / one["raw"])
    assert cli.main(["plan", "--accuracy", "rows.csv"]) == 0
    assert "2 rows of 2 sources, each predicted without its source" in " ".join(
        capsys.readouterr().out.split()
    )
    found = cross_validate(predict_published_rows(tmp_path / "rows.csv"))
    assert [each.error for each in found] == pytest.approx([1.0, 0.5])
    assert isinstance(found[0], HeldOutPrediction)


def test_a_plan_of_this_machine_says_that_its_times_were_corrected(tmp_path):
    made = support.configs(tmp_path)
    runs = [Run(each, support.facts(each), run_dir(sweep_dir(made), each)) for each in made]
    correction = Correction(1.5, math.log(9), MIN_LAUNCHES)
    outlook = forecast(make_blocks(runs), made[0].engine, 2, RunEstimator([], {ASSUMED: correction}))
    starts = dict.fromkeys(outlook.estimates, 0.0)
    sweep_plan = plan_on_this_machine(
        runs,
        outlook.estimates,
        starts,
        makespan=Interval(outlook.schedule.makespan, outlook.low, outlook.high),
        devices=2,
        utilisation=1.0,
    )
    for run, planned in zip(runs, sweep_plan.runs, strict=True):
        raw = estimate_run(run, 1, outlook.oversubscription, [])
        expected = apply_correction(raw, {ASSUMED: correction})
        assert planned.step_seconds.value == pytest.approx(1.5 * raw.train / raw.steps)
        assert planned.step_seconds.high / planned.step_seconds.value == pytest.approx(9)
        assert planned.days.value * 86_400 == pytest.approx(expected.seconds)
        assert "corrected" in planned.evidence["step_seconds"]
