"""What a node is asked before the first worker goes there."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from harness.config.errors import UserError
from harness.fleet.engines import Exit, probe
from harness.fleet.launch import launch
from tests.fleet.support import configs, tools


class Node:
    """Runs the node's side of a probe at once, as `does` has it."""

    def __init__(self, does) -> None:
        self.does = does

    def start(self, order, argv):
        self.does(order, argv)
        return order

    def poll(self, _):
        return Exit(0, "the worker ended with status 0")


def probed(does, tmp_path, needs=()) -> None:
    node = Node(does)
    probe.probe(node, node.start, tmp_path, needs, print)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(probe, "VISIBLE", 0.05)
    monkeypatch.setattr(probe, "TICK", 0.01)
    monkeypatch.setattr(probe.importlib, "import_module", lambda name: None)


def answers(order, argv):
    probe.answer(order.log.parent, argv[2], argv[3:])


def test_a_node_that_has_all_is_taken(quick, tmp_path):
    probed(answers, tmp_path, [tmp_path])
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("probe-")] == []


def test_a_folder_that_is_not_shared(quick, tmp_path):
    other = tmp_path / "of_the_node"
    other.mkdir()
    with pytest.raises(UserError, match="the folder is not shared; choose one that every node sees"):
        probed(lambda order, argv: probe.answer(other, argv[2], argv[3:]), tmp_path)


def test_another_folder_of_the_same_name(quick, tmp_path):
    def stale(order, argv):
        (tmp_path / f"probe-{argv[2]}.ask").unlink()
        answers(order, argv)

    with pytest.raises(UserError, match="is another folder there"):
        probed(stale, tmp_path)


def test_a_node_without_the_harness(quick, tmp_path):
    def speaks(order, argv):
        order.log.write_text("python: No module named harness\n")

    with pytest.raises(UserError, match=r"does not run the harness on a node .*No module named harness"):
        probed(speaks, tmp_path)


def test_a_node_without_jax(quick, tmp_path, monkeypatch):
    def fails(name):
        raise ImportError(f"No module named '{name}'")

    monkeypatch.setattr(probe.importlib, "import_module", fails)
    with pytest.raises(UserError, match=r"cannot import jax .*engine.slurm.setup"):
        probed(answers, tmp_path)


def test_a_node_without_the_data(quick, tmp_path):
    with pytest.raises(UserError, match=r"corpus\.txt is not there"):
        probed(answers, tmp_path, [tmp_path / "corpus.txt"])


@pytest.mark.parametrize(("shift", "side"), [(3600, "ahead of"), (-3600, "behind")])
def test_clocks_that_differ(quick, tmp_path, monkeypatch, shift, side):
    real = time.time

    def wrong(order, argv):
        with monkeypatch.context() as patch:
            patch.setattr(probe.time, "time", lambda: real() + shift)
            answers(order, argv)

    with pytest.raises(UserError, match=f"clock is 3[56].. s {side} this machine's"):
        probed(wrong, tmp_path)


class Lacking:
    """An engine whose nodes lack something."""

    def __init__(self, *_) -> None: ...

    def check(self, *_) -> None:
        raise UserError("the nodes have no JAX")


def test_what_nodes_lack_is_said_before_anything_of_the_sweep_is_written(tmp_path):
    with pytest.raises(UserError, match="no JAX"):
        launch(configs(tmp_path), replace(tools(), engine=Lacking))
    assert [path.name for path in (tmp_path / "trial").iterdir()] == ["driver.lock"]
