"""Data that changed between two launches of one sweep: refused before the first step, naming what changed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from harness.config.schema.data import SourceConfig
from harness.config.schema.run import Config
from harness.config.schema.run_schedule import EvaluationSetConfig
from harness.core.errors import UserError
from harness.launcher.run_directories import provenance_of
from harness.launcher.runs import Run, run_dir, sweep_dir
from harness.launcher.same_data import check_same_data
from harness.launcher.stages.describe_runs import description_key
from harness.launcher.sweep import launch
from harness.records.paths import SweepDir
from harness.records.run.config_file import write_config
from harness.records.run.provenance import Facts, SetFacts, SourceFacts, write_provenance
from harness.records.run.status import State, Status, write_status
from tests.launcher.support import config, facts, tools

SOURCE = SourceFacts("one", 2, 9, 900, True, 0.05, "documents", [], {"a.txt": "1", "b.txt": "2"})


def reader(folder: Path, variant: str, seed: int = 0, touches: list[str] | None = None, **fields) -> Config:
    made = config(folder, variant, seed)
    made.data.sources["own"] = SourceConfig("texts")
    made.variant.touches += touches or []
    for name, value in fields.items():
        setattr(made.data, name, value)
    return made


def described(made: Config, content: str = "one", tokenizer: str = "t", **fields) -> Run:
    source = dataclasses.replace(SOURCE, content=content, **fields)
    fingerprint = f"{content} {tokenizer} {made.data.holdout}"
    values = {"data_fingerprint": fingerprint, "eval_fingerprint": fingerprint, "tokenizer": tokenizer}
    known = dataclasses.replace(facts(made), sources={"own": source}, **values)
    return Run(made, known, run_dir(sweep_dir([made]), made))


def trained(run: Run, state: State = State.finished, step: int = 20) -> Run:
    run.dir.path.mkdir(parents=True)
    write_config(run.dir.config, run.config)
    write_provenance(run.dir, provenance_of(run))
    write_status(run.dir, Status(state=state, step=step, steps=20))
    return run


def written(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (folder / "trial").rglob("*") if path.is_file()}


def refusal(folder: Path, *runs: Run) -> str:
    with pytest.raises(UserError) as error:
        check_same_data(SweepDir(folder / "trial"), runs)
    return str(error.value)


@pytest.mark.parametrize(
    ("digests", "said"),
    [
        ({"a.txt": "1", "b.txt": "3"}, "data.sources.own.path=texts changed (b.txt different)"),
        ({"a.txt": "1", "b.txt": "2", "c.txt": "3"}, "data.sources.own.path=texts changed (c.txt new)"),
        ({"a.txt": "1"}, "data.sources.own.path=texts changed (b.txt gone)"),
        ({}, "data.sources.own.path=texts changed (a.txt gone, b.txt gone)"),
        (dict.fromkeys("cdef", "1"), "(a.txt gone, b.txt gone, c new, ...)"),
    ],
)
def test_a_variant_added_after_a_file_changed_is_refused(tmp_path, digests, said):
    trained(described(reader(tmp_path, "mha")))
    message = refusal(tmp_path, described(reader(tmp_path, "short"), "two", digests=digests))
    assert message.startswith(f"{tmp_path / 'trial'}: ")
    assert said in message
    assert "since xs/mha/seed0 was trained, so xs/short/seed0 would read other data" in message
    assert "Restore that, or choose another experiment_name" in message


def test_a_changed_validation_set_is_named(tmp_path):
    runs = []
    for variant, content in (("mha", "one"), ("short", "two")):
        made = reader(tmp_path, variant)
        made.evaluation.sets = {"new": EvaluationSetConfig("new.txt")}
        sets = {"new": SetFacts(content, 1, 128, 128, False, 13, 0.0, 0.0)}
        run = described(made)
        runs.append(
            dataclasses.replace(
                run, facts=dataclasses.replace(run.facts, sets=sets, eval_fingerprint=content)
            )
        )
    trained(runs[0])
    assert ": evaluation.sets.new.path=new.txt changed since xs/mha/seed0" in refusal(tmp_path, runs[1])


def test_another_seed_and_a_changed_tokenizer_are_refused_too(tmp_path):
    trained(described(reader(tmp_path, "mha", tokenizer="tok.json")))
    added = described(reader(tmp_path, "mha", 1, tokenizer="tok.json"), tokenizer="u")
    assert "data.tokenizer=tok.json changed since xs/mha/seed0" in refusal(tmp_path, added)


def test_a_run_that_would_go_on_with_other_data_is_refused(tmp_path):
    trained(described(reader(tmp_path, "mha")), State.preempted, step=10)
    assert "changed" in refusal(tmp_path, described(reader(tmp_path, "mha"), "two"))


def test_runs_without_steps_to_keep_are_made_again_on_the_new_data(tmp_path):
    trained(described(reader(tmp_path, "mha")), State.pending, step=0)
    added = [described(reader(tmp_path, variant), "two") for variant in ("mha", "short")]
    check_same_data(SweepDir(tmp_path / "trial"), added)


def test_a_run_that_starts_over_for_other_code_is_no_obstacle(tmp_path):
    old = trained(described(reader(tmp_path, "mha")), State.preempted, step=10)
    write_provenance(old.dir, dataclasses.replace(provenance_of(old), code_hash="other"))
    check_same_data(SweepDir(tmp_path / "trial"), [described(reader(tmp_path, "mha"), "two")])


def test_a_sweep_that_is_finished_is_compared_whatever_became_of_its_data(tmp_path):
    runs = [trained(described(reader(tmp_path, variant))) for variant in ("mha", "short")]
    check_same_data(SweepDir(tmp_path / "trial"), [described(run.config, "two") for run in runs])


def test_a_variant_with_other_data_in_its_config_declares_it(tmp_path):
    trained(described(reader(tmp_path, "mha")))
    other = described(reader(tmp_path, "short", holdout=0.1))
    assert "data.holdout (0.05 against 0.1) changed since" in refusal(tmp_path, other)
    check_same_data(
        SweepDir(tmp_path / "trial"), [described(reader(tmp_path, "short", touches=["data"], holdout=0.1))]
    )
    check_same_data(SweepDir(tmp_path / "trial"), [described(reader(tmp_path, "short", 1, holdout=0.1))])


def test_a_run_of_an_earlier_version_names_what_may_have_changed(tmp_path):
    old = trained(described(reader(tmp_path, "mha")))
    earlier = dataclasses.replace(old.facts, sources={}, tokenizer="")
    write_provenance(old.dir, dataclasses.replace(provenance_of(old), facts=earlier))
    message = refusal(tmp_path, described(reader(tmp_path, "short"), "two"))
    assert (
        "data.sources.own.path=texts, data.tokenizer=bpe512 or how this version reads it changed" in message
    )


def test_a_launch_checks_it_before_it_writes(tmp_path):
    def describe(content: str):
        return lambda configs: [described(each, content).facts for each in configs]

    first = dataclasses.replace(tools(), describe=describe("one"))
    launch([reader(tmp_path, "mha")], first)
    before = written(tmp_path)
    grown = dataclasses.replace(tools(), describe=describe("two"))
    both = [reader(tmp_path, variant) for variant in ("mha", "short")]
    with pytest.raises(UserError, match=r"data.sources.own.path=texts changed"):
        launch(both, grown)
    with pytest.raises(UserError, match=r"data.sources.own.path=texts changed"):
        launch([reader(tmp_path, "short")], grown)
    assert {
        path: path.stat().st_mtime_ns for path in (tmp_path / "trial").rglob("*") if path.is_file()
    } == before
    assert [outcome.state for outcome in launch([reader(tmp_path, "mha")], grown)] == ["finished"]


@pytest.mark.parametrize("path", ["~/texts", "~/link", "~/texts/a.txt"])
def test_facts_are_described_again_when_a_file_changes(tmp_path, monkeypatch, path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "texts").mkdir()
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "texts").symlink_to(tmp_path / "texts")
    (tmp_path / "texts" / "a.txt").write_text("one")
    made = reader(tmp_path, "mha")
    made.data.sources["own"].path = path
    before = description_key(made)
    (tmp_path / "texts" / "a.txt").write_text("one more")
    assert description_key(made) != before


def test_facts_of_sources_are_read_back_and_a_malformed_one_is_damage(tmp_path):
    from harness.core.atomic_files import read_checksummed_json, write_checksummed_json
    from harness.records.run.provenance import read_provenance

    run = trained(described(reader(tmp_path, "mha")))
    record = read_provenance(run.dir)
    assert record
    assert record.facts == run.facts
    content = read_checksummed_json(run.dir.run)
    assert content
    for wrong in (
        {"own": []},
        {"own": {"files": 1}},
        {"own": {**content["facts"]["sources"]["own"], "files": "2"}},
    ):
        content["facts"]["sources"] = wrong
        write_checksummed_json(run.dir.run, content)
        assert read_provenance(run.dir) is None
    with pytest.raises(TypeError):
        Facts(**{**dataclasses.asdict(run.facts), "sources": {"own": None}})
