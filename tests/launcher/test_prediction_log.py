"""What was predicted beside what was measured: kept in order, cut, and skipped where it is damaged."""

from __future__ import annotations

import dataclasses
import json

import pytest

from harness.core.errors import UserError
from harness.launcher.cost import prediction_log, step_cost
from harness.launcher.cost.prediction_log import (
    Prediction,
    PredictionLog,
    append_predictions,
    read_predictions,
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "cache"))


def made(run: str = "xs/mha/seed0", **changes) -> Prediction:
    fields = {
        "run": run, "experiment": "trial", "launch": "a", "program": "p", "machine": "cpu x 2", "devices": 1,
        "evidence": step_cost.MEASURED, "raw": 0.1, "predicted": 0.2, "low": 0.15, "high": 0.3,
        "measured": 1 / 3, "date": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    return Prediction(**fields | changes)


def test_what_is_appended_is_read_in_its_order():
    append_predictions([made("a"), made("b")])
    append_predictions([])
    append_predictions([made("c")])
    assert read_predictions() == PredictionLog((made("a"), made("b"), made("c")), 0)


def test_nothing_is_there_before_the_first():
    assert read_predictions() == PredictionLog((), 0)


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b"3",
        b'{"run": "a"}',
        b"\xff\xfe",
        prediction_log._line(made()).replace("0.2", "0.3").encode(),
        prediction_log._line(made()).replace("xs/mha", "xs/mhb").encode(),
    ],
)
def test_a_damaged_line_costs_itself_alone(line):
    append_predictions([made("a")])
    with prediction_log._path().open("ab") as file:
        file.write(line + b"\n")
    append_predictions([made("b")])
    assert read_predictions() == PredictionLog((made("a"), made("b")), 1)


def test_a_line_that_a_kill_cut_short_spoils_nothing_else():
    append_predictions([made("a"), made("b")])
    path = prediction_log._path()
    path.write_bytes(path.read_bytes()[:-20])
    append_predictions([made("c")])
    assert read_predictions() == PredictionLog((made("a"), made("c")), 1)


def test_lines_of_another_version_are_no_damage_and_no_evidence(monkeypatch):
    append_predictions([made("a")])
    monkeypatch.setattr(prediction_log, "VERSION", prediction_log.VERSION + 1)
    append_predictions([made("b")])
    assert read_predictions() == PredictionLog((made("b"),), 1)


def test_a_field_that_is_not_known_is_skipped():
    content = {"version": prediction_log.VERSION, **dataclasses.asdict(made()), "colour": "red"}
    line = json.dumps(content | {"checksum": prediction_log.atomic_files.json_checksum(content)})
    prediction_log._path().write_text(line + "\n")
    assert read_predictions() == PredictionLog((), 1)


def test_the_file_is_bounded_and_the_newest_stay(monkeypatch):
    monkeypatch.setattr(prediction_log, "MAX_LINES", 3)
    for number in range(20):
        append_predictions([made(str(number))])
        kept = [each.run for each in read_predictions().predictions]
        assert len(kept) <= 6
        assert kept == [str(each) for each in range(number + 1)][-len(kept) :]
        assert len(kept) >= min(number + 1, 3)


def test_a_file_that_may_not_be_read_is_an_empty_one(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "file"))
    assert read_predictions() == PredictionLog((), 0)
    with pytest.raises(UserError, match="file"):
        append_predictions([made()])
