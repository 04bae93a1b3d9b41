"""What a machine damaged of a finished sweep: the same command finds it, says it and mends it."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from harness.compare.inputs.decision_rule import read_rule
from harness.launcher.stages import freeze_rule
from harness.records.paths import RunDir, SweepDir
from harness.records.run.integrity import find_damage
from harness.records.sweep import ledger
from tests.launcher.soak.whole import assert_as
from tests.launcher.support import configs, train


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """`runs` with a sweep of one pair."""
    runs = tmp_path_factory.mktemp("finished")
    train(configs(runs, seeds=(0,)))
    return runs


def again(runs: Path) -> str:
    """What the same command prints; every run finishes."""
    screen = Console(file=io.StringIO(), width=200)
    outcomes = train(configs(runs, seeds=(0,)), screen)
    assert {outcome.state for outcome in outcomes} == {"finished"}
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def copied(finished: Path, folder: Path) -> tuple[SweepDir, RunDir]:
    shutil.copytree(finished, folder, dirs_exist_ok=True)
    sweep = SweepDir(folder / "trial")
    return sweep, sweep.run("xs", "mha", 0)


@pytest.mark.parametrize(
    "name", ["examples.json", "status.json", "config.yaml", "metrics", "checkpoints", "run.json"]
)
def test_what_a_finished_run_lost_is_mended(finished, tmp_path, name):
    sweep, run = copied(finished, tmp_path)
    lost = run.path / name
    shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    again(tmp_path)
    assert not find_damage(run)
    assert_as(SweepDir(finished / "trial"), sweep)


@pytest.mark.parametrize("name", ["examples.json", "status.json", "run.json"])
def test_a_number_that_was_changed_is_seen(finished, tmp_path, name):
    sweep, run = copied(finished, tmp_path)
    path = run.path / name
    path.write_text(path.read_text().replace("20", "21", 1))
    assert name in again(tmp_path)
    assert not find_damage(run)
    assert_as(SweepDir(finished / "trial"), sweep)


def test_what_kills_left_half_written_goes(finished, tmp_path):
    sweep, run = copied(finished, tmp_path)
    for folder in (sweep.path, run.path, run.metrics, run.checkpoints):
        (folder / ".a.json.1.2.tmp").touch()
    (run.checkpoints / "00000003").mkdir()
    (run.checkpoints / "00000005.orbax-checkpoint-tmp").mkdir()
    again(tmp_path)
    assert_as(SweepDir(finished / "trial"), sweep)


@pytest.mark.parametrize("content", [None, b"", b"{}"])
def test_the_rule_is_written_again_as_the_ledger_holds_it(finished, tmp_path, content):
    sweep, _ = copied(finished, tmp_path)
    before = sweep.rule.read_bytes()
    sweep.rule.unlink() if content is None else sweep.rule.write_bytes(content)
    assert "written again" in again(tmp_path)
    assert sweep.rule.read_bytes() == before
    assert "written again" not in again(tmp_path)


def test_a_ledger_that_is_lost_takes_the_rule_from_its_file(finished, tmp_path):
    sweep, _ = copied(finished, tmp_path)
    before = sweep.rule.read_bytes()
    sweep.ledger.unlink()
    made = configs(tmp_path, seeds=(0,))[0]
    made.rule.control, made.rule.margin = "mha", 0.5
    assert "margin" in str(freeze_rule.write_rule(sweep, made, ["mha", "short"]))
    assert sweep.rule.read_bytes() == before


def test_a_flipped_bit_of_the_ledger_is_said_and_moves_nothing(finished, tmp_path_factory):
    steps = {"number": 0}

    @given(st.data())
    @settings(max_examples=15, deadline=None)
    def check(data: st.DataObject) -> None:
        sweep, run = copied(finished, tmp_path_factory.mktemp("flipped"))
        content = bytearray(sweep.ledger.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        sweep.ledger.write_bytes(content)
        before, wrong = run.status.stat().st_mtime_ns, ledger.edited_positions(sweep)
        said = again(sweep.path.parent)
        assert run.status.stat().st_mtime_ns == before, "a finished run was trained again"
        assert ("was changed after it was written" in said) == bool(wrong)
        assert bool(wrong) == any(d.kind == "ledger_edited" for d in read_rule(sweep, [])[1])
        steps["number"] += bool(wrong)

    check()
    assert steps["number"] > 3
