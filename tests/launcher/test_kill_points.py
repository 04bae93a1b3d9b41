"""A driver ended by SIGKILL at each of its own writes, one after the other."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from harness.core import atomic_files
from harness.core.hashing import hash_json
from harness.launcher.engines.engine_api import Engine
from harness.launcher.sweep import LaunchHooks, launch
from harness.records.paths import SweepDir
from harness.records.run.config_file import read_config
from harness.records.run.provenance import read_provenance
from harness.records.sweep import ledger
from tests.launcher.support import configs, facts


class ReadyToTrain(Exception):
    pass


class NoEngine:
    def check(self, *_: Any) -> None:
        pass

    def submit(self, order: Any) -> None:
        raise ReadyToTrain

    def close(self) -> None:
        pass


def prepare_everything(runs: Path) -> None:
    """A launch up to its first worker."""
    tools = LaunchHooks(
        lambda configs: [facts(each) for each in configs],
        lambda *_: cast(Engine, NoEngine()),
        lambda *_: None,
    )
    with pytest.raises(ReadyToTrain):
        launch(configs(runs, seeds=(0,)), tools, Console(quiet=True))


def killed_at(call: int, name: str, action: Callable[[], None]) -> bool:
    """Run in a child that is killed as it makes the n-th call of `os.<name>`; False if it made fewer."""
    child = os.fork()
    if child == 0:
        try:
            real, count = getattr(os, name), [0]

            def counting(*arguments: Any, **options: Any) -> Any:
                count[0] += 1
                if count[0] == call:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **options)

            setattr(os, name, counting)
            action()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("name", ["fsync", "rename", "replace", "mkdir"])
def test_the_same_command_mends_what_a_kill_left(tmp_path, name):
    call = 0
    while True:
        call += 1
        runs = tmp_path / str(call)
        died = killed_at(call, name, lambda runs=runs: prepare_everything(runs))
        prepare_everything(runs)
        assert_ready(SweepDir(runs / "trial"))
        if not died:
            break
    assert call > 1 or name == "rename", f"no os.{name} was made: the test tests nothing"


def assert_ready(sweep: SweepDir) -> None:
    """All runs described and placed once, the rule fixed once, nothing half written in the way."""
    found = [*sweep.runs()]
    assert len(found) == 2
    for run in found:
        record = read_provenance(run)
        assert record is not None
        assert record.config_hash == hash_json(read_config(run.config))
    assert ledger.edited_positions(sweep) == []
    assert [entry["kind"] for entry in ledger.read(sweep)] == ["rule", "placement"]
    rule = atomic_files.read_json(sweep.rule) or {}
    assert (
        rule["hash"]
        == ledger.read(sweep, "rule")[0]["content"]["hash"]
        == hash_json({key: value for key, value in rule.items() if key != "hash"})
    )
