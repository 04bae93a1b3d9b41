"""Lists of sweeps and of named choices, and the JSON of a sweep at its end and under watch."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from harness import cli
from harness.cli import conclude, hydra_main
from harness.config.compose import config_groups
from harness.records.paths import SweepDir
from harness.records.run.status import State, read_status, write_status
from harness.report.frames.sweep_progress import ProgressReader
from tests.compare.synthetic import Recipe, write_sweep
from tests.schemas.valid import check_output


@pytest.fixture
def sweep(tmp_path, monkeypatch) -> SweepDir:
    """A finished sweep in runs/, one run of which has failed."""
    monkeypatch.chdir(tmp_path)
    sweep = write_sweep(tmp_path / "runs" / "trial", Recipe(scales={"xs": 10**7}, branches=()))
    failed = next(sweep.runs())
    write_status(failed, dataclasses.replace(read_status(failed), state=State.failed, message="no disk"))
    return sweep


def printed(capsys, *words: str) -> str:
    assert cli.main(words) == 0
    return capsys.readouterr().out


def test_every_shipped_choice_has_a_line_with_words(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for group, names in config_groups().items():
        first, *lines = printed(capsys, "list", group).splitlines()
        assert first == f"{group}=NAME, which may be"
        described = {line.split()[0] for line in lines if len(line.split()) > 2}
        assert described == {*names}
        assert not any("[" in line and line.endswith(".yaml]") for line in lines), "only own ones say where"


def test_own_choices_are_listed_with_their_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    places = (("conf", "mine"), ("ideas", "yours"))
    for folder, name in places:
        file = Path(folder, "variant", f"{name}.yaml")
        file.parent.mkdir(parents=True)
        file.write_text(
            f"# @package _global_\n# The idea of {name}. More of it.\nvariant: {{name: {name}}}\n"
        )
    lines = printed(capsys, "list", "variants", "hydra.searchpath=[file://ideas]").splitlines()
    own = {" ".join(line.split()) for line in lines if line.endswith(".yaml]")}
    assert own == {f"{name} The idea of {name}. [{folder}/variant/{name}.yaml]" for folder, name in places}


def test_a_sweep_has_a_line_with_state_age_and_decisions(sweep, capsys):
    assert "5 of 6 runs ended, 1 failed" in printed(capsys, "list", "sweeps")
    printed(capsys, "compare", str(sweep.path))
    decision = {"verdict": "It is not settled.", "ladder": [{"variant": "b", "decision": "INCONCLUSIVE"}]}
    sweep.comparison.write_text(json.dumps(decision))
    (line,) = [line for line in printed(capsys, "list").splitlines() if "runs/trial" in line]
    assert line.endswith("seconds ago; b INCONCLUSIVE")
    listing = check_output(printed(capsys, "list", "sweep", "gates", "--json"), "list")
    assert [row["decisions"] for row in listing["sweeps"]] == [{"b": "INCONCLUSIVE"}]
    assert [*listing["choices"]] == ["gate"]
    sweep.comparison.write_text("[")
    assert "no verdict" in printed(capsys, "list", f"runs={sweep.path.parent}", "sweeps")


def test_an_empty_folder_says_what_makes_a_sweep(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert printed(capsys, "list", "sweeps").startswith("No sweep lies in runs yet; `harness sweep")


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("vriants", "harness list vriants: no such kind; did you mean 'variant'?\n"),
        ("scale=xs", "harness list scale=...: only runs= and hydra.searchpath= say where to look\n"),
        ("runs=s3://bucket/runs", "runs=s3://bucket/runs: this must be a path, but s3 is not a mounted"),
    ],
)
def test_what_cannot_be_listed_is_one_sentence(word, sentence, capsys):
    assert cli.main(["list", word]) == 2
    assert capsys.readouterr().err.startswith(sentence)


def test_watch_prints_the_progress_of_every_run(sweep, capsys):
    watched = check_output(printed(capsys, "watch", str(sweep.path), "--once", "--json"), "watch")
    progress = ProgressReader(sweep).read(0.0)
    assert [run["name"] for run in watched["runs"]] == [run.name for run in progress.runs]
    assert (watched["num_ended"], watched["num_failed"], watched["is_over"]) == (5, 1, True)
    assert [run["message"] for run in watched["runs"] if run["state"] == "failed"] == ["no disk"]
    assert cli.main(["watch", str(sweep.path), "--json"]) == 2
    assert "--json goes with --once" in capsys.readouterr().err


@pytest.mark.parametrize("status", [0, 1])
def test_a_sweep_prints_its_comparison_alone_on_standard_output(sweep, status, capsys, monkeypatch):
    def train(*_) -> int:
        print("lines of the sweep")
        conclude.CONCLUDED.append(sweep)
        return status

    monkeypatch.setattr(hydra_main, "main", train)
    assert cli.main(["sweep", "experiment=attention", "--json"]) == status
    output, errors = capsys.readouterr()
    assert "lines of the sweep" in errors
    expected = json.loads(printed(capsys, "compare", str(sweep.path), "--json"))
    assert check_output(output, "compare") | {"times": {}} == expected | {"times": {}}


def test_a_sweep_that_ends_before_a_comparison_prints_nothing(sweep, capsys, monkeypatch):
    monkeypatch.setattr(hydra_main, "main", lambda *_: 130)
    assert cli.main(["sweep", "experiment=attention", "--json"]) == 130
    assert capsys.readouterr().out == ""
    assert sys.stdout is not sys.stderr


@pytest.mark.parametrize("words", [("--dry-run",), ("--cfg", "job")])
def test_a_sweep_that_trains_nothing_has_no_json(words, capsys):
    assert cli.main(["sweep", "--json", *words]) == 2
    assert (
        "--json prints a verdict, and this trains nothing: use `harness plan --json`"
        in capsys.readouterr().err
    )
