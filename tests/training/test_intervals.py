"""Evaluations and checkpoints of a real run, at intervals in tokens and in minutes."""

from __future__ import annotations

from harness.records.run.checkpoint_manifest import manifest_steps
from harness.records.run.metrics import read_curve
from harness.records.run.status import State
from tests.training.runs import prepare, train


def test_a_run_is_evaluated_by_tokens_and_saved_by_the_clock(tmp_path):
    run = prepare(
        tmp_path, "scale.tokens=1280", "schedule.branches=[]", "evaluation.points=null",
        "evaluation.every_tokens=512", "checkpoint.every=null", "checkpoint.every_minutes=1e-9",
    )  # fmt: skip
    assert train(run) is State.finished
    assert read_curve(run, "evals")["step"].unique().sort().to_list() == [2, 4, 5]
    assert manifest_steps(run) == [1, 2, 3, 4, 5]
