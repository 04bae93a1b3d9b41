"""Logs of other tools: every format gives the same table, and what cannot be read names its way out."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import polars as pl
import pytest

from harness import cli
from harness.compare import compare_curves
from harness.compare.inputs.importers.open_logs import LogReading, read_logs
from harness.core.errors import UserError
from harness.core.files import protobuf_wire as wire

LOGS = Path(__file__).parent / "logs"
CURVES = Path(__file__).parents[3] / "shared" / "curves"
NAME = "{variant}_{scale}_seed{seed}"
RUNS = [(variant, seed) for variant in ("plain", "wide") for seed in (0, 1)]
STEPS = (10, 20, 30, 40)


def loss(variant: str, seed: int, step: int) -> float:
    """The loss that each tool logged: tests/compare/logs/README.md."""
    better = 0.01 * (variant == "wide")
    return 4 - 0.1 * math.log(step / 10) - better + 3e-4 * math.sin(9 * seed + len(variant))


def read(*paths, maps=(), name=None, keep=None, lines=None):
    return read_logs(paths, LogReading.from_options(maps, name, keep, lines))


def sentence(*paths, **options) -> str:
    with pytest.raises(UserError) as caught:
        read(*paths, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_all_runs(logs, digits: int = 6) -> None:
    """Every run has its four evaluations, with the tokens and the losses that were logged."""
    rows = logs.frame.sort("variant", "seed", "step").select(
        "variant", "scale", "seed", "step", "tokens", "loss"
    )
    expected = [(v, "s", seed, step, 100 * step) for v, seed in RUNS for step in STEPS]
    assert [row[:5] for row in rows.rows()] == expected
    losses = [loss(v, seed, step) for v, _, seed, step, _ in expected]
    assert rows["loss"].to_list() == pytest.approx(losses, abs=0.6 * 10**-digits)


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


def long_rows() -> pl.DataFrame:
    rows = [
        {"run": f"{v}_s_seed{seed}", "arm": v, "_step": step, "val/loss": loss(v, seed, step)}
        for v, seed in RUNS
        for step in STEPS
    ]
    return pl.DataFrame(rows)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_a_long_table_is_read_with_a_column_map(tmp_path, suffix):
    path = tmp_path / f"history.{suffix}"
    table = long_rows().with_columns(seed=pl.col("run").str.extract(r"(\d)$").cast(pl.Int64))
    writers = {"csv": table.write_csv, "jsonl": table.write_ndjson, "parquet": table.write_parquet}
    table.write_csv(path, separator="\t") if suffix == "tsv" else writers[suffix](path)
    maps = ["variant=arm", "scale='s'", "tokens=step*100"]
    logs = read(path, maps=maps)
    assert_all_runs(logs)
    assert logs.lines[2] == (
        "Columns: variant from arm, scale from 's', seed, step from _step, tokens from step*100, "
        "loss from val/loss"
    )
    named = read(path, maps=[*maps, "seed=run"])
    assert named.frame["seed"].n_unique() == 4
    assert named.lines[1].startswith(
        "Runs: 4, of the 8 that 2 variants (plain, wide) x 1 scale (s) x 4 seeds"
    )


def test_a_chart_export_of_wandb_is_read(tmp_path):
    wide = long_rows().pivot("run", index="_step", values="val/loss").rename({"_step": "Step"})
    names = wide.columns[1:]
    extra = [pl.col(name).alias(f"{name} - val/loss__{end}") for name in names for end in ("MIN", "MAX")]
    chart = wide.with_columns(extra).rename({name: f"{name} - val/loss" for name in names})
    chart.write_csv(tmp_path / "chart.csv", quote_style="always")
    logs = read(tmp_path / "chart.csv", name=NAME, maps=["tokens=step*100"])
    assert_all_runs(logs)
    assert logs.lines[0] == f"Read: 4 W&B chart exports in {tmp_path / 'chart.csv'}"
    wide.write_csv(tmp_path / "wide.csv")
    assert_all_runs(read(tmp_path / "wide.csv", name=NAME, maps=["tokens=step*100"]))
    assert "there is no column 'variant'" in sentence(tmp_path / "wide.csv")


TEXT = {
    "modded-nanogpt": "import torch\nprint0(f'step:{{step}} val_loss:{{val}}')\n"
    "step:{step}/40 val_loss:{loss:.4f} train_time:5ms step_avg:1.0ms\nstep:{step}/40 train_time:6ms\n",
    "nanoGPT": "iter {step}: loss 9.0, time 5ms\nstep {step}: train loss 9.0000, val loss {loss:.4f}\n",
    "llm.c": "s:{step} eval:0.3\ns:{step} trl:9.0 lr:0.000600 norm:1.0\ns:{step} tel:{loss:.4f}\n",
    "Megatron": " [2026-01-01] iteration {step:8d}/      40 | consumed samples: {step:12d} | learning rate: "
    "3.0E-04 | lm loss: 9.0E+00 |\n validation loss at iteration {step} | lm loss value: {loss:.6E} | lm "
    "loss PPL: 2.0E+01 |\n",
    "MaxText": "completed step: {step}, seconds: 1.0, total_weights: 9, loss: 9.000\n"
    "eval metrics after step: {step}, loss={loss:.4f}, total_weights=75264.0\n",
    "torchtitan": "[titan] 2026-01-01 - root - INFO - \x1b[31mstep: {step:2}  \x1b[32mloss:  9.0\x1b[39m\n"
    "[titan] - INFO - \x1b[33mvalidate step: {step:2}  \x1b[32mloss: {loss:7.4f}  \x1b[36mmemory: 1.00GiB\n",
}
"""Lines of each trainer, as its source prints them: training, then an evaluation."""


def write_text_logs(folder: Path, template: str) -> None:
    for variant, seed in RUNS:
        lines = [template.format(step=step, loss=loss(variant, seed, step)) for step in STEPS]
        (folder / f"{variant}_s_seed{seed}.log").write_text("".join(lines))


@pytest.mark.parametrize("trainer", TEXT)
def test_the_text_log_of_a_trainer_is_known_by_its_lines(tmp_path, trainer):
    write_text_logs(tmp_path, TEXT[trainer])
    logs = read(tmp_path, name=NAME, maps=["tokens=step*100"])
    assert_all_runs(logs, digits=4)
    assert logs.lines[0] == f"Read: 4 {trainer} logs in 4 places below {tmp_path}"


def test_values_of_training_lines_reach_the_next_evaluation(tmp_path):
    write_text_logs(tmp_path, TEXT["Megatron"])
    logs = read(tmp_path, name=NAME, maps=["tokens=consumed_samples*100"])
    assert_all_runs(logs, digits=4)
    assert logs.frame["learning_rate"].unique().to_list() == [3e-4]


def test_a_text_log_is_read_by_an_expression(tmp_path):
    write_text_logs(tmp_path, "update {step} tok={step}00 held-out={loss:.4f}\n")
    expression = r"update (?P<step>\d+) tok=(?P<tokens>\d+) held-out=(?P<loss>\S+)"
    assert_all_runs(read(tmp_path, name=NAME, lines=expression), digits=4)
    assert "has no evaluation (tried: modded-nanogpt, nanoGPT" in sentence(tmp_path, name=NAME)
    assert "names no loss. Put (?P<loss>...) around it" in sentence(tmp_path, lines=r"(?P<step>\d+)")
    assert "is no regular expression" in sentence(tmp_path, lines="(?P<step>")


def test_a_resume_is_read_with_keep_alone(tmp_path):
    table = long_rows().rename({"arm": "variant", "_step": "step", "val/loss": "loss"})
    again = table.filter(pl.col("step") == 40).with_columns(pl.col("loss") + 0.5)
    path = tmp_path / "log.csv"
    pl.concat([table, again]).write_csv(path)
    maps = ["scale='s'", "seed=run", "tokens=step*100"]
    assert "--keep last takes the later one (--keep first the earlier)" in sentence(path, maps=maps)
    last, first = (read(path, maps=maps, keep=keep).frame for keep in ("last", "first"))
    assert last.height == first.height == table.height
    ends = [frame.filter(step=40).sort("seed")["loss"] for frame in (last, first)]
    assert (ends[0] - ends[1]).to_list() == pytest.approx([0.5] * 4)


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


@pytest.mark.skipif(not CURVES.is_dir(), reason="needs ../shared/curves")
def test_real_resumed_logs_are_read_with_keep_alone():
    path = CURVES / "resumed_raw.csv"
    assert "--keep last takes the later one" in sentence(path)
    logs = read(path, keep="last")
    steps = pl.read_csv(path).select("variant", "scale", "seed", "step").unique()
    assert logs.frame.height == steps.height == 646


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


def test_a_nested_object_of_json_lines_has_dotted_names(tmp_path):
    path = tmp_path / "log.jsonl"
    rows = [
        {
            "variant": v,
            "scale": "s",
            "seed": s,
            "step": i,
            "tokens": 100 * i,
            "loss": {"val": loss(v, s, i)},
            "lr": [1],
        }
        for v, s in RUNS
        for i in STEPS
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert_all_runs(read(path))


PLAIN = "variant,scale,seed,step,tokens,loss,x"


def two_columns(folder: Path, header: str) -> Path:
    (folder / "log.csv").write_text(f"{header}\na,s,0,1,10,3.0,3.5\n")
    return folder / "log.csv"


@pytest.mark.parametrize(
    ("header", "options", "said"),
    [
        ("variant,scale,seed,step,tokens,loss,val_loss", {}, "'val_loss' and 'loss' could be the loss. "),
        ("variant,scale,seed,step,tokens,eval_loss,val/loss", {}, "Choose with --map loss="),
        ("variant,scale,run,step,tokens,loss,x", {}, "there is no column 'seed'; "),
        ("variant,scale,run,step,tokens,loss,x", {}, "Name it with --map seed=COLUMN, read it from the path"),
        ("variant,scale,seed,step,size,loss,x", {}, "or say how many a step takes: --map 'tokens="),
        ("variant,scale,seed,step,tokens,nll,x", {}, "Name the column with --map loss=COLUMN"),
        (f"{PLAIN[:-1]}val_loss", {"maps": ["seed='0'"]}, "'val_loss' and 'loss' could be the loss. "),
        (PLAIN, {"maps": ["loss=los"]}, "no column or setting 'los'; did you"),
        (PLAIN, {"maps": ["los=x"]}, "'los' is no column of curves; did you"),
        (PLAIN, {"maps": ["loss"]}, "--map loss: write COLUMN=NAME"),
        (PLAIN, {"maps": ["loss=x", "loss=y"]}, "loss is mapped twice"),
        ("seed,scale,variant,step,tokens,loss,x", {}, "seed=a is not a number; --map seed=seed numbers"),
        (PLAIN, {"name": "{variant}_{seed}"}, "does not end like this"),
        (PLAIN, {"name": "{arm}.csv"}, "'arm' is no column of curves"),
        (PLAIN, {"name": "log.csv"}, "name each column once"),
    ],
)  # fmt: skip
def test_a_column_that_is_missing_names_its_way_out(tmp_path, header, options, said):
    assert said in sentence(two_columns(tmp_path, header), **options)


@pytest.mark.parametrize("word", ["None", "N/A", "null"])
def test_a_word_for_nothing_is_refused_with_the_way_out(tmp_path, word):
    path = tmp_path / "log.csv"
    path.write_text(f"variant,scale,seed,step,tokens,loss\na,s,0,1,10,{word}\n")
    assert f"row 1: loss={word} is not a number: leave the cell empty" in sentence(path)


def test_a_name_that_can_be_read_in_two_ways_is_refused(tmp_path):
    write_text_logs(tmp_path, TEXT["nanoGPT"])
    for file in [*tmp_path.iterdir()]:
        file.rename(file.with_name(f"my_{file.name}"))
    maps = ["tokens=step*100"]
    said = sentence(tmp_path, name=NAME, maps=maps)
    assert "can be read in two ways, variant=my or my_plain. Say what a place holds" in said
    logs = read(tmp_path, name="{variant}_{scale:[a-z]}_seed{seed}", maps=maps)
    assert sorted(logs.frame["variant"].unique()) == ["my_plain", "my_wide"]
    assert logs.frame["scale"].unique().to_list() == ["s"]


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


def test_a_name_in_a_log_cannot_act_on_the_terminal(tmp_path):
    rows = long_rows().select(
        variant="arm", scale=pl.lit("s\x1b[2J"), seed="run", step="_step", loss="val/loss"
    )
    rows.write_csv(tmp_path / "log.csv")
    logs = read(tmp_path / "log.csv", maps=["seed=seed", "tokens=step*100"])
    assert "1 scale (s\\x1b[2J)" in logs.lines[1]


def test_python_judges_logs_too():
    logs = read(LOGS / "trackio.db")
    comparison = compare_curves(logs, decayed="last")
    assert comparison.rungs == compare_curves(LOGS / "trackio.db", decayed="last").rungs
    assert comparison.rungs[0].n == 2
