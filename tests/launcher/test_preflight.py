"""What a node is asked before the first worker goes there."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import UserError
from harness.launcher.engines import preflight
from harness.launcher.engines.engine_api import Exit
from harness.launcher.sweep import launch
from harness.launcher.sweep_lock import Interrupted
from tests.launcher.support import configs, tools

ENDED = Exit(0, "the worker ended with status 0")


class Node:
    """Runs the node's side of a probe at once, as `does` has it."""

    def __init__(self, does, end: Exit) -> None:
        self.does, self.end = does, end

    def start(self, order, argv):
        self.does(order, argv)
        return order

    def poll(self, _):
        return self.end

    def close(self) -> None: ...


def probed(does, tmp_path, needs=(), end=ENDED) -> None:
    node: Any = Node(does, end)
    preflight.run_preflight(node, node.start, tmp_path, needs, print)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(preflight, "FILE_VISIBLE_SECONDS", 0.05)
    monkeypatch.setattr(preflight, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(preflight.importlib, "import_module", lambda name: None)


def answers(order, argv):
    preflight.write_answer(order.log.parent, argv[2], argv[3:])


def test_a_node_that_has_all_is_taken(quick, tmp_path):
    probed(answers, tmp_path, [tmp_path])
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("probe-")] == []


def test_a_node_whose_harness_is_another_one(quick, tmp_path, monkeypatch):
    def older(order, argv):
        with monkeypatch.context() as patch:
            patch.setattr(preflight, "code_hash", lambda: "of last month")
            answers(order, argv)

    with pytest.raises(UserError, match="has another version of the harness"):
        probed(older, tmp_path)


def test_a_folder_that_is_not_shared(quick, tmp_path):
    other = tmp_path / "of_the_node"
    other.mkdir()
    with pytest.raises(
        UserError, match=r"is not shared: the test job should have written .*\. Choose a folder"
    ):
        probed(lambda order, argv: preflight.write_answer(other, argv[2], argv[3:]), tmp_path)


def test_a_job_that_did_not_run_says_nothing_of_the_folder(quick, tmp_path):
    end = Exit(None, "job 1_0 would wait forever (PartitionConfig)")
    with pytest.raises(UserError) as refused:
        probed(lambda *_: None, tmp_path, end=end)
    assert str(refused.value) == f"the test job before the first worker did not run: {end.message}"


def test_another_folder_of_the_same_name(quick, tmp_path):
    def stale(order, argv):
        (tmp_path / f"probe-{argv[2]}.ask").unlink()
        answers(order, argv)

    with pytest.raises(UserError, match="is a different folder there"):
        probed(stale, tmp_path)


def test_a_node_without_the_harness(quick, tmp_path):
    def speaks(order, argv):
        order.log.write_text("python: No module named harness\n")

    with pytest.raises(UserError, match=r"cannot run the harness on a node .*No module named harness"):
        probed(speaks, tmp_path)
    assert [*tmp_path.iterdir()] == [], "the sentence has what the log said"


def test_all_that_a_short_log_says_is_quoted(quick, tmp_path):
    def speaks(order, argv):
        order.log.write_text("module: cuda/99 is unknown\n\nbash: python: No such file\n")

    with pytest.raises(UserError, match="cuda/99 is unknown; bash: python: No such file"):
        probed(speaks, tmp_path)


def test_what_lay_there_before_stays(quick, tmp_path):
    for name in ("xs.log", "jobs-1.sh"):
        (tmp_path / name).touch()
    (tmp_path / "probe-0123.ask").touch()  # of a driver that was killed
    with pytest.raises(UserError, match="is not there"):
        probed(answers, tmp_path, [tmp_path / "corpus.txt"])
    assert {path.name for path in tmp_path.iterdir()} == {"xs.log", "jobs-1.sh"}


def test_a_node_without_jax(quick, tmp_path, monkeypatch):
    def fails(name):
        raise ImportError(f"No module named '{name}'")

    monkeypatch.setattr(preflight.importlib, "import_module", fails)
    with pytest.raises(UserError, match=r"cannot import jax\.numpy .*engine.slurm.setup"):
        probed(answers, tmp_path)


def test_a_node_without_the_data(quick, tmp_path):
    with pytest.raises(UserError, match=r"corpus\.txt is not there"):
        probed(answers, tmp_path, [tmp_path / "corpus.txt"])


@pytest.mark.parametrize(("shift", "side"), [(3600, "ahead of"), (-3600, "behind")])
def test_clocks_that_differ(quick, tmp_path, monkeypatch, shift, side):
    real = time.time

    def wrong(order, argv):
        with monkeypatch.context() as patch:
            patch.setattr(preflight.time, "time", lambda: real() + shift)
            answers(order, argv)

    with pytest.raises(UserError, match=f"clock is 3[56].. s {side} this machine's"):
        probed(wrong, tmp_path)


class Lacking:
    """An engine whose nodes lack something."""

    def __init__(self, _, logs: Path) -> None:
        self._logs = logs

    def check(self, *_) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        raise UserError("the nodes have no JAX")


def refused(runs: Path) -> None:
    with pytest.raises(UserError, match="no JAX"):
        launch(configs(runs), replace(tools(), engine=Lacking))


def test_what_nodes_lack_is_said_and_nothing_is_left(tmp_path):
    refused(tmp_path / "new" / "runs")
    assert [*tmp_path.iterdir()] == []


def test_told_to_leave_while_a_node_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(Lacking, "check", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        launch(configs(tmp_path / "runs"), replace(tools(), engine=Lacking))
    assert [*tmp_path.iterdir()] == []


def test_a_folder_that_was_there_stays_as_it_was(tmp_path):
    before = {tmp_path / "trial", tmp_path / "trial" / "plan.json"}
    (tmp_path / "trial").mkdir()
    (tmp_path / "trial" / "plan.json").touch()
    refused(tmp_path)
    assert {*tmp_path.rglob("*")} == before
    locks = {tmp_path / "trial" / "workers", tmp_path / "trial" / "driver.lock"}
    (tmp_path / "trial" / "workers").mkdir()
    (tmp_path / "trial" / "driver.lock").touch()
    refused(tmp_path)
    assert {*tmp_path.rglob("*")} == before | locks
