"""Look by look: a scale stops as a whole or not at all, and what was decided is never decided again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from harness.compare.verdict.interim_looks import LookDecision
from harness.config.schema.data import Order, StageConfig
from harness.config.schema.decision import Axis, Stopping
from harness.core.errors import UserError
from harness.launcher.runs import Block, Run, make_blocks, run_dir, sweep_dir
from harness.launcher.stages.interim_looks import interim_looks, train_by_looks
from harness.records.paths import SweepDir
from harness.records.run.status import State, Status, read_status, write_status
from harness.records.run.training_target import END, read_target
from harness.records.sweep import ledger
from tests.launcher.support import config, configs, facts
from tests.launcher.support import train as train_sweep

LOOKS = (0.4, 0.6, 0.8)


class Trainer:
    """Brings runs to their goal, and remembers in which order it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, list[str]]] = []

    def __call__(self, blocks: Sequence[Block]) -> None:
        runs = [run for block in blocks for run in block.runs]
        self.asked.append((read_target(runs[0].dir), [run.name for run in runs]))
        for run in runs:
            reach(run)


def reach(run: Run, state: State | None = None) -> None:
    goal = read_target(run.dir)
    write_status(run.dir, Status(state or (State.waiting if goal < END else State.finished)))
    if goal < END:
        branch = run.dir.branch(goal)
        branch.path.mkdir(parents=True, exist_ok=True)
        write_status(branch, Status(State.finished))


@pytest.fixture
def sweep(tmp_path):
    made = configs(tmp_path, scales=("xs", "s"))
    sweep = sweep_dir(made)
    blocks = make_blocks([Run(each, facts(each), run_dir(sweep, each)) for each in made])
    for block in blocks:
        for run in block.runs:
            run.dir.path.mkdir(parents=True)
    return sweep, blocks


@pytest.fixture
def deciding(monkeypatch):
    """`stops`: {scale: the look at which it stops}; `seen`: the decisions that were asked for."""
    stops, seen = {}, []

    def decide_look(sweep: SweepDir, scale: str, look: int, shares) -> LookDecision:
        seen.append((scale, look))
        stop = stops.get(scale) == look
        outcomes = {"short": "efficacy" if stop else "continue"}
        return LookDecision(scale, look, len(shares) + 1, stop, outcomes, f"{scale}: look {look}")

    monkeypatch.setattr("harness.compare.verdict.interim_looks.decide_look", decide_look)
    return stops, seen


def states(blocks, scale: str) -> set[State]:
    return {read_status(run.dir).state for block in blocks if block.scale == scale for run in block.runs}


def test_without_a_stop_every_look_is_decided_once_and_every_run_ends(sweep, deciding):
    directory, blocks = sweep
    trainer = Trainer()
    train_by_looks(directory, blocks, LOOKS, trainer, lambda _: None)
    assert [goal for goal, _ in trainer.asked] == [0.4, 0.6, 0.8, END]
    assert all(len(runs) == 8 for _, runs in trainer.asked)
    assert deciding[1] == [(scale, look) for look in (1, 2, 3) for scale in ("xs", "s")]
    assert states(blocks, "xs") | states(blocks, "s") == {State.finished}


def test_a_stop_ends_every_run_of_its_scale_and_no_other(sweep, deciding):
    directory, blocks = sweep
    deciding[0]["xs"] = 2
    trainer = Trainer()
    train_by_looks(directory, blocks, LOOKS, trainer, lambda _: None)
    assert states(blocks, "xs") == {State.stopped}
    assert states(blocks, "s") == {State.finished}
    assert [len(runs) for _, runs in trainer.asked] == [8, 8, 4, 4]
    assert ("xs", 3) not in deciding[1]
    stopped = [entry["content"] for entry in ledger.read(directory, "look") if entry["content"]["stop"]]
    assert [(entry["scale"], entry["look"], entry["share"]) for entry in stopped] == [("xs", 2, 0.6)]


def test_the_same_command_repeats_no_decision(sweep, deciding):
    directory, blocks = sweep
    deciding[0]["xs"] = 1
    train_by_looks(directory, blocks, LOOKS, Trainer(), lambda _: None)
    decided = [*deciding[1]]
    deciding[0].clear()
    trainer = Trainer()
    train_by_looks(directory, blocks, LOOKS, trainer, lambda _: None)
    assert (deciding[1], trainer.asked) == (decided, [])
    assert states(blocks, "xs") == {State.stopped}


def test_a_kill_between_decision_and_marks_is_mended(sweep, deciding):
    directory, blocks = sweep
    deciding[0]["xs"] = 1
    train_by_looks(directory, blocks, LOOKS, Trainer(), lambda _: None)
    for block in blocks:
        for run in block.runs:
            if block.scale == "xs":
                status = read_status(run.dir)
                write_status(run.dir, dataclasses.replace(status, state=State.waiting))
    train_by_looks(directory, blocks, LOOKS, Trainer(), lambda _: None)
    assert states(blocks, "xs") == {State.stopped}


def test_a_seed_that_comes_after_the_stop_is_trained_to_it_and_no_further(sweep, deciding, tmp_path):
    directory_, blocks = sweep
    deciding[0]["xs"] = 2
    train_by_looks(directory_, blocks, LOOKS, Trainer(), lambda _: None)
    made = [config(tmp_path, variant, 7) for variant in ("mha", "short")]
    late = make_blocks([Run(each, facts(each), run_dir(directory_, each)) for each in made])
    for run in late[0].runs:
        run.dir.path.mkdir(parents=True)
    trainer = Trainer()
    train_by_looks(directory_, late, LOOKS, trainer, lambda _: None)
    assert [goal for goal, _ in trainer.asked] == [0.4, 0.6]
    assert states(late, "xs") == {State.stopped}


def test_a_run_that_diverged_is_not_trained_further_while_its_scale_goes_on(sweep, deciding):
    directory, blocks = sweep
    write_status(blocks[0].runs[0].dir, Status(State.diverged))
    trainer = Trainer()
    train_by_looks(directory, blocks, LOOKS, trainer, lambda _: None)
    assert [len(runs) for _, runs in trainer.asked] == [7, 7, 7, 7]


def test_looks_need_branches(tmp_path):
    made = config(tmp_path)
    assert interim_looks(made, Stopping.none) is None
    with pytest.raises(UserError, match="there is no look before the end"):
        interim_looks(made, Stopping.looks)
    made.schedule.branches = [0.8, 0.4]
    made.data.stages = [StageConfig(0.5, {"a": 1.0})]
    with pytest.raises(UserError, match=r"would not see data\.stages"):
        interim_looks(made, Stopping.looks)
    made.data.stages = []
    made.data.order = Order.length
    with pytest.raises(UserError, match=r"would not see data\.order=length"):
        interim_looks(made, Stopping.looks)
    made.data.order = Order.random
    assert interim_looks(made, Stopping.looks) == (0.4, 0.8)
    made.rule.axis = Axis.seconds
    with pytest.raises(UserError, match="looks test the loss at equal tokens"):
        interim_looks(made, Stopping.looks)


def test_stopping_stands_as_it_was_written_down(tmp_path, monkeypatch):
    """A later command without `rule.stopping=looks` goes on look by look."""
    asked = []
    monkeypatch.setattr(
        "harness.launcher.stages.train_runs.train_by_looks", lambda *args: asked.append(args[2])
    )
    made = configs(tmp_path, seeds=(0,))
    for each in made:
        each.schedule.branches, each.rule.stopping = [0.5], Stopping.looks
    train_sweep(made)
    for each in made:
        each.rule.stopping = Stopping.none
    train_sweep(made)
    assert asked == [(0.5,), (0.5,)]


def test_what_a_run_noted_before_a_look_is_passed_on(sweep, deciding):
    directory, blocks = sweep
    first, printed = blocks[0].runs[0], []

    def train(blocks):
        Trainer()(blocks)
        if read_target(first.dir) == LOOKS[0]:
            message = "at its interim look at 40% of the tokens; step-1 is damaged"
            write_status(first.dir, Status(State.waiting, message=message))

    train_by_looks(directory, blocks, LOOKS, train, printed.append)
    assert printed.count(f"{first.name}: step-1 is damaged") == 1
    assert sum("damaged" in line for line in printed) == 1
