"""A command with other values continues a sweep: what is taken up, what is told, and what is refused."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from harness.config.schema.cluster import MeshConfig
from harness.config.schema.finetune import FinetuneMethod
from harness.config.schema.run import Config, Profile
from harness.core.errors import UserError
from harness.core.hashing import hash_json
from harness.launcher import run_directories
from harness.launcher.run_directories import RunAction, check_identities, create_new, prepare, set_state
from harness.launcher.runs import Run, run_dir, sweep_dir
from harness.launcher.sweep import launch
from harness.records.paths import SweepDir
from harness.records.run.config_file import read_config
from harness.records.run.provenance import read_provenance
from harness.records.run.status import State
from tests.launcher.support import configs, facts, tools, train

BASE = {"run": "/old/parent", "name": "parents/xs/mha/seed0@9", "step": 9, "identity": "i", "checksum": "c"}


@pytest.fixture
def first(tmp_path) -> Run:
    """An unfinished run of an earlier launch, from a parent checkpoint."""
    config = configs(tmp_path)[0]
    config.finetune.method, config.finetune.parent = FinetuneMethod.full, "/old/parent"
    run = made(config)
    create_new([run])
    return run


def made(config: Config, **base) -> Run:
    return Run(
        config, dataclasses.replace(facts(config), base=BASE | base), run_dir(sweep_dir([config]), config)
    )


def changed(run: Run, node: str, **values) -> Config:
    return dataclasses.replace(run.config, **{node: dataclasses.replace(getattr(run.config, node), **values)})


def go_on(run: Run) -> None:
    check_identities([run])
    assert prepare(SweepDir(run.dir.path.parents[2]), run, lambda line: None) is RunAction.train


def test_other_checkpoints_are_kept_from_the_next_start_on(first):
    before = read_provenance(first.dir)
    for keep in (5, 3, 2):
        run = made(changed(first, "checkpoint", keep_last=keep, keep_every=10 * keep))
        go_on(run)
        stored, record = read_config(run.dir.config), read_provenance(run.dir)
        assert stored.checkpoint.keep_last == keep
        assert record.config_hash == hash_json(stored)
        assert record.identity == before.identity, "its checkpoints name it"


def test_a_parent_that_was_moved_is_the_same_parent(first):
    run = made(changed(first, "finetune", parent="/new/parent"), run="/new/parent")
    go_on(run)
    assert read_config(run.dir.config).finetune.parent == "/new/parent"
    assert read_provenance(run.dir).facts.base["run"] == "/new/parent"
    go_on(run)
    with pytest.raises(UserError, match=r"finetune\.parent"):
        check_identities([made(changed(first, "finetune", parent="/third"), checksum="other")])
    with pytest.raises(UserError, match="which has been trained again since"):
        check_identities([made(run.config, checksum="other")])


def test_a_run_takes_up_what_is_outside_its_identity(first):
    go_on(made(changed(first, "profile", name=Profile.steps)))
    assert read_config(first.dir.config).profile.name is Profile.steps


def test_an_ended_run_keeps_the_config_that_it_was_trained_with(tmp_path):
    train(configs(tmp_path))
    again = [
        dataclasses.replace(c, checkpoint=dataclasses.replace(c.checkpoint, keep_last=7))
        for c in configs(tmp_path)
    ]
    assert [outcome.state for outcome in train(again)] == ["finished"] * 4
    assert {read_config(run.config).checkpoint.keep_last for run in SweepDir(tmp_path / "trial").runs()} == {
        2
    }


def test_what_a_run_computes_is_not_taken_up(first):
    with pytest.raises(UserError, match=r"holds another run: optimizer.learning_rate"):
        check_identities([made(changed(first, "optimizer", learning_rate=0.5))])
    with pytest.raises(UserError, match=r"checkpoint.every"):
        check_identities([made(changed(first, "checkpoint", every=7, keep_last=7))])


def test_a_kill_between_the_two_files_loses_no_run(first, monkeypatch):
    run = made(changed(first, "checkpoint", keep_last=5))

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_directories, "write_config", die)
        with pytest.raises(KeyboardInterrupt):
            go_on(run)
    go_on(run)
    assert read_config(run.dir.config).checkpoint.keep_last == 5


@pytest.mark.parametrize("dry_run", [False, True])
def test_another_mesh_is_told_and_not_taken(tmp_path, dry_run):
    train(configs(tmp_path))
    run = run_dir(SweepDir(tmp_path / "trial"), configs(tmp_path)[0])
    set_state(run, State.pending, "")
    output = io.StringIO()
    again = [dataclasses.replace(c, mesh=MeshConfig(data=2)) for c in configs(tmp_path, dry_run=dry_run)]
    launch(again, tools(), Console(file=output, width=200))
    assert (
        "xs/mha/seed0 and 3 more keep the mesh of the first launch; resume.replan=true" in output.getvalue()
    )
    assert read_config(run.config).mesh == MeshConfig()
