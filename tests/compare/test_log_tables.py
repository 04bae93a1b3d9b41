"""Tables of curves under other names and in other forms, and what mends a column that is missing."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from tests.compare.foreign_logs import (
    CURVES,
    NAME,
    RUNS,
    STEPS,
    assert_all_runs,
    long_rows,
    loss,
    read,
    sentence,
)


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


@pytest.mark.skipif(not CURVES.is_dir(), reason="needs ../shared/curves")
def test_real_resumed_logs_are_read_with_keep_alone():
    path = CURVES / "resumed_raw.csv"
    assert "--keep last takes the later one" in sentence(path)
    logs = read(path, keep="last")
    steps = pl.read_csv(path).select("variant", "scale", "seed", "step").unique()
    assert logs.frame.height == steps.height == 646


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


def test_a_name_in_a_log_cannot_act_on_the_terminal(tmp_path):
    rows = long_rows().select(
        variant="arm", scale=pl.lit("s\x1b[2J"), seed="run", step="_step", loss="val/loss"
    )
    rows.write_csv(tmp_path / "log.csv")
    logs = read(tmp_path / "log.csv", maps=["seed=seed", "tokens=step*100"])
    assert "1 scale (s\\x1b[2J)" in logs.lines[1]
