"""Runs of models of a user's own: trained, stopped and resumed, and replayed bit by bit."""

from __future__ import annotations

import threading
from typing import Any

import jax
import numpy as np
import pytest

from harness.config.compose import compose
from harness.config.schema.run import Config, ModelConfig
from harness.data import HeldOut, Reader, open_data
from harness.inspection.diff.diff_checkpoints import diff
from harness.inspection.replay.verify import verify
from harness.records.run.config_file import read_config
from harness.records.run.metrics import read_curve
from harness.records.run.status import State
from harness.training.parent_checkpoint import rebuild_model
from harness.training.programs.run_programs import RunPrograms, make_run_programs
from harness.training.run import train_run
from tests.models import own_models  # noqa: F401, registers the models
from tests.prepared import prepare_run
from tests.training.runs import assignment, curve, stopping_at

TINY = (
    "model.kind=test_curve",
    "imports=[tests.models.own_models]",
    *("data=digits", "data.kind=test_waves", "data.name=waves", "data.sequence_length=2"),
    *("scale.batch=8", "scale.tokens=480", "evaluation.tokens=64", "evaluation.points=2"),
    *("checkpoint.every=8", "checkpoint.keep_last=10", "optimizer.learning_rate=0.02"),
)
"""30 steps of 8 rows of made numbers."""


def prepare(folder, *overrides):
    config = compose([*TINY, *overrides])
    config.data.sources = {}
    return prepare_run(folder / "sweep", config)


def train(run, stop: Any = None, stop_at=None):
    task, config = assignment(run), read_config(run.config)
    corpus = open_data(config.data)
    get_batch = Reader(corpus.sampler(config.scale.batch, config.data_seed)).get
    if stop_at is not None:
        get_batch = stopping_at(stop_at, get_batch, stop)
    model = rebuild_model(config, task.provenance.facts)
    heldout = corpus.heldout(config.evaluation.tokens)
    programs = make_run_programs(config, model, jax.devices()[:1], get_batch, heldout)
    return train_run(task, programs, stop or threading.Event())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = prepare(tmp_path_factory.mktemp("own"))
    assert train(run) is State.finished
    return run


def test_a_run_learns_and_is_described_by_what_is_known(trained):
    steps, evals = read_curve(trained, "steps"), read_curve(trained, "evals")
    assert steps["loss"][-1] < steps["loss"][0]
    assert evals["domain"].unique().to_list() == ["test_waves"]
    assert evals["bits_per_byte"].is_null().all()
    facts = assignment(trained).provenance.facts
    assert (facts.row, facts.row_dtype, facts.loss_unit) == ([2, 4], "float32", "squared error a value")
    assert not facts.is_known
    assert facts.activation_bytes > 0


def test_its_steps_are_replayed_bitwise(trained):
    found = verify(trained.path, trust=True)
    assert found.same
    assert found.equal == found.last - found.first > 0


def test_stopped_and_resumed_is_bitwise_the_same(trained, tmp_path):
    """Its noise is that of the step, wherever the run was stopped."""
    run, stop = prepare(tmp_path), threading.Event()
    assert train(run, stop, stop_at=13) is State.preempted
    assert train(run) is State.finished
    assert curve(run).equals(curve(trained))
    assert curve(run, "evals").equals(curve(trained, "evals"))


def test_its_weights_are_compared_and_its_predictions_are_not(trained):
    found = diff(f"{trained.path}@16", f"{trained.path}@30", trust=True)
    assert found.function.refused == "'test_curve' models do not predict tokens"
    assert found.weights.total.parameters == 76


@pytest.mark.parametrize(("kind", "num_bytes"), [("test_rnn", 10), ("test_curve", 0)])
def test_bits_a_byte_are_made_of_nats_alone(kind, num_bytes):
    config: Any = Config(model=ModelConfig(kind=kind))
    rows: Any = {"text": HeldOut(np.zeros((1, 4), np.int32), 10)}
    nothing: Any = None
    programs = RunPrograms(config, nothing, nothing, nothing, rows)
    assert programs._measured_rows["text"].bytes == num_bytes
