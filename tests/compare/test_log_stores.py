"""Stores of tools: each gives the same table, and what cannot be read names its way out."""

from __future__ import annotations

import json
import math
import shutil

import polars as pl
import pytest

from harness import cli
from harness.compare import compare_curves
from harness.core.errors import UserError
from harness.core.files import protobuf_wire as wire
from tests.compare.foreign_logs import (
    LOGS,
    NAME,
    RUNS,
    STEPS,
    assert_all_runs,
    loss,
    read,
    sentence,
)


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("tensorboard", {"name": NAME}),
        ("wandb", {"maps": ["scale=model.scale"]}),
        ("wandb", {"name": NAME}),
        ("mlruns", {}),
        ("mlflow.db", {}),
        ("trackio.db", {}),
    ],
)
def test_a_store_of_a_tool_is_read(path, options):
    logs = read(LOGS / path, **options)
    assert_all_runs(logs)
    assert (
        logs.lines[1] == "Runs: 4 = 2 variants (plain, wide) x 1 scale (s) x 2 seeds (0, 1); 16 evaluations"
    )
    assert "loss from val/loss" in logs.lines[2]
    assert logs.notes == ()


def test_scalars_as_tensors_are_read():
    logs = read(LOGS / "tensor_scalars", name=NAME)
    assert logs.frame.select("step", "tokens", "loss").rows() == [(10, 1000, 4.0), (20, 2000, 3.5)]


def test_the_trainer_state_with_the_most_steps_has_the_history(tmp_path):
    for variant, seed in RUNS:
        for last in (20, 40):
            history = [
                row
                for step in STEPS
                if step <= last
                for row in (
                    {"loss": 9.0, "learning_rate": 1e-3 / step, "step": step, "epoch": 0.1},
                    {
                        "eval_loss": loss(variant, seed, step),
                        "step": step,
                        "num_input_tokens_seen": 100 * step,
                    },
                )
            ]
            file = tmp_path / f"{variant}_s_seed{seed}" / f"checkpoint-{last}" / "trainer_state.json"
            file.parent.mkdir(parents=True)
            file.write_text(json.dumps({"global_step": last, "log_history": history}, indent=2))
    logs = read(tmp_path, name=NAME)
    assert_all_runs(logs)
    assert logs.frame["learning_rate"].to_list()[:4] == [1e-3 / step for step in STEPS]


def test_a_neptune_export_is_read(tmp_path):
    """Columns as the exporter documents them; its rows come attribute after attribute."""
    rows = []
    for variant, seed in RUNS:
        run = {"project_id": "p", "run_id": f"RUN-{variant}-{seed}"}
        for name, value in (("sys/name", f"{variant}_s_seed{seed}"), ("params/scale", "s")):
            rows.append(run | {"attribute_path": name, "attribute_type": "string", "string_value": value})
        for name in ("val/loss", "tokens"):
            rows += [
                run | {
                    "attribute_path": name, "attribute_type": "float_series", "step": float(step),
                    "float_value": loss(variant, seed, step) if name == "val/loss" else 100.0 * step,
                }
                for step in STEPS
            ]  # fmt: skip
    frame = pl.DataFrame(rows, infer_schema_length=None).with_columns(pl.col("step").cast(pl.Decimal(18, 6)))
    frame.write_parquet(tmp_path / "run_part_0.parquet")
    assert_all_runs(read(tmp_path, name=NAME))
    by_id = read(tmp_path / "run_part_0.parquet", maps=["variant=run_name", "seed=run_id"])
    assert "the seeds are names of runs, numbered in sorted order: 0 is RUN-plain-0" in by_id.notes[0]
    assert by_id.frame["seed"].unique().sort().to_list() == [0, 1, 2, 3]


def test_of_a_step_that_a_store_has_twice_the_later_by_time_is_the_last(tmp_path):
    shutil.copytree(LOGS / "mlruns", tmp_path / "mlruns")
    for file in tmp_path.rglob("val/loss"):
        file.write_text(f"1899999999999 9.0 40\n{file.read_text()}")
    assert "has several losses at step 40" in sentence(tmp_path)
    for keep, end in (("last", 9.0), ("first", pytest.approx(loss("plain", 0, 40)))):
        rows = read(tmp_path, keep=keep).frame.filter(variant="plain", seed=0, step=40)
        assert rows["loss"].to_list() == [end]
        assert rows["tokens"].to_list() == [4000]


def test_a_run_that_went_on_in_another_folder_is_joined_and_named(tmp_path):
    for part in ("first", "second"):
        shutil.copytree(LOGS / "tensorboard", tmp_path / part)
    logs = read(tmp_path / "first", tmp_path / "second", name=NAME, keep="last")
    assert_all_runs(logs)
    assert logs.notes == (
        "runs joined from several logs: s/plain/seed0, s/plain/seed1, s/wide/seed0, s/wide/seed1",
    )


def test_an_evaluation_has_the_tokens_logged_before_it(tmp_path):
    """W&B counts a step a call where none is given, so that tokens and losses stand in rows of their own."""
    import sqlite3

    file = tmp_path / "p.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE metrics (id INTEGER, run_name TEXT, step INTEGER, metrics TEXT)")
        connection.execute("CREATE TABLE configs (run_name TEXT, config TEXT)")
        for call, row in enumerate(
            [{"tokens": 500, "lr": 0.1}, {"val_loss": 3.0}, {"tokens": 900}, {"val_loss": "NaN"}]
        ):
            connection.execute("INSERT INTO metrics VALUES (?, 'a_s_0', ?, ?)", (call, call, json.dumps(row)))
    logs = read(file, name="{variant}_{scale}_{seed}")
    assert logs.frame.select("step", "tokens", "learning_rate").rows() == [(1, 500, 0.1), (3, 900, 0.1)]
    assert logs.frame["loss"][0] == 3.0
    assert math.isnan(logs.frame["loss"][1])
    assert logs.notes == ("2 evaluations have the tokens that were logged last before them",)


def test_the_loss_of_training_is_not_taken_for_that_of_validation():
    said = sentence(LOGS / "trackio.db", maps=["loss=val/los"])
    assert "no column or setting 'val/los'; did you mean 'val/loss'?" in said
    logs = read(LOGS / "trackio.db", maps=["loss=train/loss"])
    assert logs.frame["loss"][0] == pytest.approx(loss("plain", 0, 10) + 0.1)


def test_a_run_that_ended_before_its_first_evaluation_is_counted(tmp_path):
    shutil.copytree(LOGS / "mlruns", tmp_path / "mlruns")
    run = next(meta.parent for meta in tmp_path.rglob("meta.yaml") if "wide_s_seed1" in meta.read_text())
    (run / "metrics" / "val" / "loss").unlink()
    for maps in ((), ["loss=val/loss"]):
        logs = read(tmp_path, maps=maps)
        assert logs.lines[1].startswith("Runs: 4 = ")
        (lost,) = [run for run in compare_curves(logs).runs if run.outcome is None]
        assert (lost.path, "without any evaluation" in lost.problem) == ("s/wide/seed1", True)
    for file in tmp_path.rglob("val/loss"):
        file.unlink()
    assert "there is no column 'loss'; train/loss may be of training" in sentence(tmp_path)


def test_a_folder_of_several_tools_is_refused(tmp_path):
    shutil.copytree(LOGS / "tensorboard", tmp_path / "tensorboard")
    shutil.copy(LOGS / "trackio.db", tmp_path)
    assert "holds TensorBoard event files and SQLite files, which may log the same runs" in sentence(tmp_path)


def test_files_of_other_schemas_are_refused(tmp_path):
    import sqlite3

    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
    assert "of neither trackio nor MLflow (tables: customers)" in sentence(tmp_path / "other.db")
    (tmp_path / "trainer_state.json").write_text('{"global_step": 1}')
    assert "has no list 'log_history'" in sentence(tmp_path / "trainer_state.json")
    events = tmp_path / "run" / "events.out.tfevents.1.host"
    events.parent.mkdir()
    events.write_bytes(b"")
    assert "the TensorBoard event folder holds no numbers" in sentence(tmp_path / "run")
    events.write_bytes(b"something else entirely")
    assert "is damaged, or no TensorBoard event file (byte 0)" in sentence(tmp_path / "run")


@pytest.mark.parametrize("tool", ["tensorboard", "wandb"])
def test_a_flipped_byte_is_found_and_a_cut_end_is_an_end(tmp_path, tool):
    options = {"name": NAME} if tool == "tensorboard" else {"maps": ["scale=model.scale"]}
    source = sorted(file for file in (LOGS / tool).rglob("*") if file.is_file())[0]
    run = tmp_path / source.parent.name
    run.mkdir()
    content = source.read_bytes()
    for position in range(0, len(content), 7):
        flipped = bytearray(content)
        flipped[position] ^= 64
        (run / source.name).write_bytes(flipped)
        try:
            logs = read(tmp_path, **options)
        except UserError:
            continue
        assert "files that end within a record" in logs.notes[0]  # the length of a record was flipped
    (run / source.name).write_bytes(content[:-70])
    logs = read(tmp_path, **options)
    assert logs.frame.height == 3
    assert "files that end within a record, by a kill or by damage" in logs.notes[0]


def test_bytes_that_are_no_message_are_refused():
    for content in (b"\x08", b"\x0a\x05ab", b"\x0b", b"\xff" * 12):
        with pytest.raises(wire.WireError):
            list(wire.fields(content))
    assert [*wire.fields(b"\x08\x96\x01\x12\x02hi")] == [(1, 150), (2, b"hi")]
    assert wire.integer(b"\x08" + b"\xff" * 9 + b"\x01", 1) == -1


def test_the_command_says_what_it_understood_before_the_verdict(capsys):
    words = ["compare", "--curves", str(LOGS / "tensorboard"), "--name", NAME]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed[:3]] == ["Read", "Runs", "Columns"]
    assert cli.main([*words, "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("Read: 4 TensorBoard event folders")
    assert json.loads(captured.out)["rungs"]


def test_python_judges_logs_too():
    logs = read(LOGS / "trackio.db")
    comparison = compare_curves(logs, decayed="last")
    assert comparison.rungs == compare_curves(LOGS / "trackio.db", decayed="last").rungs
    assert comparison.rungs[0].n == 2
