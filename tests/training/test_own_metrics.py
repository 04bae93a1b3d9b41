"""Metrics of a user's own: recorded beside the loss, replayed with it, refused before training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from harness.config.compose import compose
from harness.core.errors import UserError
from harness.inspection.replay.verify import verify
from harness.models import build
from harness.parallel.sharding.mesh import abstract_mesh
from harness.records.run.metrics import EVALS, STEPS, list_parts, metric_columns, read_curve, write_part
from harness.training.metrics.call_records import record_calls
from harness.training.metrics.metric_registry import METRICS, register_metric
from harness.training.programs.metric_columns import check_metrics, evaluation_columns, step_columns
from harness.training.programs.program_specs import ProgramSpecs
from tests.training.runs import TINY, prepare, train

SHORT = ("scale.tokens=2048", "schedule.branches=[]", "checkpoint.every=4", "mesh.data=2")
"""8 steps on 2 devices."""


@pytest.fixture(autouse=True)
def own_metrics():
    """Register metrics of a user's own for one test."""

    @dataclass(frozen=True)
    class NormOptions:
        factor: float = 1.0

    def norm(tree):
        return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))

    @register_metric("norms", NormOptions, at="step", unit="1")
    def norms(params, grads, updates, options):
        return {"grads": options.factor * norm(grads), "share": norm(updates) / norm(params)}

    @register_metric("first_loss", at="step", better="lower")
    def first_loss(model, params, rows_BR):
        return jnp.mean(model.token_losses(params, rows_BR))

    @register_metric("row_loss", at="evaluation", unit="nats", better="lower")
    def row_loss(model, params, rows_BR):
        loss_BT = model.token_losses(params, rows_BR)
        return {"all": jnp.mean(loss_BT, axis=1), "last": loss_BT[:, -1]}

    before = {**METRICS.entries}
    yield
    METRICS.entries.clear()
    METRICS.entries.update(before)
    for name in ("norms", "first_loss", "row_loss"):
        METRICS.entries.pop(name)


def metrics(*names, **options):
    values = ", ".join(f"{key}: {value}" for key, value in options.items())
    nodes = [f"{{name: {name}, options: {{{values}}}}}" for name in names]
    return f"metrics=[{', '.join(nodes)}]"


def specs(*names, **options):
    config = compose([*TINY, metrics(*names, **options)])
    return ProgramSpecs(config, build(config, 257), abstract_mesh(config.mesh))


def test_a_run_records_its_own_metrics_and_verify_replays_them(tmp_path):
    run = prepare(tmp_path, *SHORT, metrics("norms", "first_loss", "row_loss"))
    train(run)
    steps, evals = read_curve(run, "steps"), read_curve(run, "evals")
    assert metric_columns(steps.columns) == ["metric.first_loss", "metric.norms.grads", "metric.norms.share"]
    np.testing.assert_allclose(steps["metric.norms.grads"], steps["grad_norm"], rtol=1e-5)
    np.testing.assert_allclose(steps["metric.first_loss"], steps["loss"], rtol=1e-5)
    assert (steps["metric.norms.share"] > 0).all()
    np.testing.assert_allclose(evals["metric.row_loss.all"], evals["loss"], rtol=1e-5)
    assert not np.allclose(evals["metric.row_loss.last"], evals["loss"], rtol=1e-3)
    result = verify(run.path, 4)
    assert result.same
    assert "metric.norms.grads" in result.columns
    assert "metric.row_loss.last" in result.evaluations.columns


def test_without_metrics_files_and_programs_are_those_of_before(tmp_path):
    run = prepare(tmp_path)
    for kind, schema in (("steps", STEPS), ("evals", EVALS)):
        assert pl.read_parquet_schema(write_part(run, kind, 0, 1, []).path) == pl.Schema(schema)
    plain, other = specs(), specs("row_loss")
    assert (step_columns(plain), evaluation_columns(plain)) == ([], [])
    with plain.mesh_context():
        traced = [jax.jit(each.step).trace(*each.step_arguments) for each in (plain, other)]
    texts = [trace.lower(lowering_platforms=("cpu",)).as_text() for trace in traced]
    assert texts[0] == texts[1]


def test_parts_with_and_without_metrics_are_one_curve(tmp_path):
    run = prepare(tmp_path)
    rows = [{"step": step, "tokens": step, "flops": 1.0, "loss": 2.0} for step in (1, 2)]
    write_part(run, "steps", 0, 1, rows[:1])
    write_part(run, "steps", 1, 2, [rows[1] | {"metric.m": 0.5}])
    assert read_curve(run, "steps")["metric.m"].to_list() == [None, 0.5]
    (_, part) = list_parts(run, "steps")
    assert part.fault() == ""
    frame = pl.read_parquet(part.path).with_columns(pl.lit("text").alias("metric.m"))
    frame.write_parquet(part.path)
    assert "does not match" in part.fault()


@pytest.mark.parametrize(
    ("at", "function", "words"),
    [
        ("step", lambda grads: jnp.ones(3), ["own", "shape [3]", "a scalar"]),
        ("step", lambda loss: {"k": jnp.ones((1,))}, ["own.k", "shape [1]"]),
        ("step", lambda loss: 3, ["int32", "floating-point"]),
        ("step", lambda loss: None, ["NoneType", "Return a scalar"]),
        ("step", lambda los: 1.0, ["'los'", "loss"]),
        ("step", lambda params: params["nothing"], ["fails", "KeyError", "nothing"]),
        ("evaluation", lambda rows_BR: 1.0, ["shape []", "a value a row, [B]"]),
        ("evaluation", lambda grads: 1.0, ["'grads'"]),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_training(at, function, words):
    register_metric("own", at=at)(function)
    with pytest.raises(UserError) as error:
        check_metrics(specs("own"))
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        (["norm"], {}, ["metrics[0].name=norm", "norms"]),
        (["norms", "norms"], {}, ["norms", "2 times"]),
        (["norms"], {"factr": 2.0}, ["metrics[0].options.factr", "factor"]),
        (["grad_norm"], {}, ["grad_norm", "column", "Rename"]),
    ],
)
def test_a_list_of_metrics_is_checked(names, options, words):
    register_metric("grad_norm", at="step")(lambda loss: loss)
    with pytest.raises(UserError) as error:
        check_metrics(specs(*names, **options))
    assert all(word in str(error.value) for word in words), error.value


def test_recorded_calls_leave_the_pass_as_it_is():
    config = compose(list(TINY))
    model = build(config, 257)
    params = jax.tree.map(jnp.asarray, model.init(0))
    tokens_BT = jnp.arange(64).reshape(2, 32)
    module = cast(Any, model.module(params))
    records = record_calls(module.layers[0].attention, "heads")
    with_records = module(tokens_BT)[0]
    plain = cast(Any, model.module(params))
    np.testing.assert_array_equal(with_records, plain(tokens_BT)[0])
    (record,) = records
    x_BTD = plain.layers[0].attention_norm(plain.embed_rows(tokens_BT))
    np.testing.assert_allclose(record.arguments[0], x_BTD, rtol=1e-6)
    expected = plain.layers[0].attention.heads(x_BTD, record.arguments[1])
    np.testing.assert_allclose(record.output[0], expected[0], rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match="no method 'haeds'"):
        record_calls(module.layers[0].attention, "haeds")
