"""Files in the forms in which people save them: read as they are, or one sentence with the option that mends
them."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile

import polars as pl
import pytest

from harness import cli
from tests.compare.foreign_logs import assert_all_runs, long_rows, read, sentence


def plain() -> pl.DataFrame:
    arms = long_rows().with_columns(
        scale=pl.lit("s"), seed=pl.col("run").str.extract(r"(\d)$"), tokens=pl.col("_step") * 100
    )
    return arms.select("scale", "seed", "tokens", variant="arm", step="_step", loss="val/loss")


CSV = plain().write_csv()
LINES = "\n".join(map(json.dumps, plain().to_dicts())) + "\n"
UNLIKE = plain().with_columns(pl.col("tokens").map_elements(lambda n: f"{n:,}", pl.String))
COMMAS = plain().write_csv(separator=";").replace(".", ",")


def tar_of(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("log.csv")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("log.csv", content)
    return buffer.getvalue()


def parquet_of(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


READ = {
    "semicolons": plain().write_csv(separator=";"),
    "tabs": plain().write_csv(separator="\t"),
    "bars": plain().write_csv(separator="|"),
    "mark of bytes": b"\xef\xbb\xbf" + CSV.encode(),
    "UTF-16": CSV.encode("utf-16"),
    "line ends of Windows": CSV.replace("\n", "\r\n"),
    "line ends of old Macs": CSV.replace("\n", "\r"),
    "comments": f"# run of May\n\n{CSV}",
    "separator told in the first line": f"sep=;\n{plain().write_csv(separator=';')}",
    "two files joined with their headers": CSV + CSV,
    "index without a name": plain().with_row_index("").write_csv(),
    "quoted line break": plain().with_columns(note=pl.lit("a\nb")).write_csv(),
    "another column twice": plain().with_columns(x=1, y=2).write_csv().replace("x,y", "x,x"),
    "whole numbers as floats": plain().cast({"seed": float, "step": float, "tokens": float}).write_csv(),
    "JSON lines": LINES,
    "list of objects": json.dumps(plain().to_dicts()),
    "printed list": json.dumps(plain().to_dicts(), indent=1),
    "object of columns": json.dumps(plain().to_dict(as_series=False)),
    "object of indexed columns": json.dumps(
        {name: {str(i): cell for i, cell in enumerate(column)} for name, column in plain().to_dict().items()}
    ),
    "gzip": gzip.compress(CSV.encode()),
    "JSON lines in gzip": gzip.compress(LINES.encode()),
    "bz2": bz2.compress(CSV.encode()),
    "xz": lzma.compress(CSV.encode()),
    "Parquet with nested columns": parquet_of(plain().with_columns(pair=pl.struct("seed", "step"), list=[1])),
}  # fmt: skip


@pytest.mark.parametrize("form", READ)
def test_a_table_is_read_in_any_form(tmp_path, form):
    content = READ[form]
    path = tmp_path / "log"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert_all_runs(read(path), digits=12)


MENDED = {
    "decimal commas": (COMMAS, "decimal point, not a comma, or say --decimal comma", {"decimal": "comma"}),
    "commas between thousands": (UNLIKE.write_csv(), "--decimal point if it parts", {"decimal": "point"}),
    "blanks between thousands": (
        UNLIKE.write_csv(separator=";").replace(",", " "), "say --decimal point", {"decimal": "point"},
    ),
    "points between thousands": (
        UNLIKE.write_csv(separator=";").replace(".", "_").replace(",", ".").replace("_", ","),
        "say --decimal comma", {"decimal": "comma"},
    ),
    "a broken line": (LINES + '{"loss": ,}\n', "line 17 is not JSON", {"skip_broken": True}),
    "two kinds of rows": (
        LINES.replace("}", ', "split": "val"}') + LINES.replace('"loss": ', '"split": "train", "loss": 1'),
        "if another column tells them apart, --filter COLUMN=VALUE", {"filters": ["split=val"]},
    ),
    "rows before the first step": (
        CSV.replace("s,0,1000,plain", "s,0,-7,plain,-1,3.0\ns,0,1000,plain", 1),
        "--filter 'step>=0' leaves out other rows", {"filters": ["step>=0"]},
    ),
    "names for seeds": (
        plain().with_columns(pl.format("3f2b-{}", "seed").alias("seed")).write_csv(),
        "--map seed=seed numbers the names", {"maps": ["seed=seed"]},
    ),
    "seeds beyond all integers": (
        plain().with_columns(pl.format("9999999999999999999{}", "seed").alias("seed")).write_csv(),
        "--map seed=seed numbers the names", {"maps": ["seed=seed"]},
    ),
    "no seed": (
        plain().filter(seed="0").drop("seed").write_csv(), "--map \"seed='0'\"", {"maps": ["seed='0'"]},
    ),
    "columns that are variants": (
        plain().pivot("variant", index=["scale", "seed", "step", "tokens"], values="loss").write_csv(),
        "If each column is a run, say what their names hold", {"name": "{variant}"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", MENDED)
def test_what_a_person_must_decide_has_an_option(tmp_path, form):
    content, said, options = MENDED[form]
    path = tmp_path / "log.txt"
    path.write_text(content)
    assert said in sentence(path)
    logs = read(path, **options)
    assert logs.frame["loss"].sum() > 0
    if form != "no seed":
        assert_all_runs(logs, digits=12)


@pytest.mark.parametrize("word", ["None", "N/A", "#VALUE!", "?", "missing", "<NA>"])
def test_a_word_for_an_empty_cell_is_told_once(tmp_path, word):
    path = tmp_path / "log.csv"
    path.write_text(CSV + f"s,0,4100,plain,41,{word}\n")
    assert f"row 17: loss={word} is not a number: leave the cell empty, or say --empty '{word}'" in sentence(
        path
    )
    assert read(path, empty=[word.upper()]).frame["loss"].null_count() == 1


def test_a_line_that_was_cut_is_the_end_of_its_file(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(LINES[:-20])
    logs = read(path)
    assert logs.frame.height == 15
    assert "files that end within a record" in logs.notes[0]


REFUSED = {
    "a zip": (zip_of(CSV.encode()), "is a zip archive or a spreadsheet. Unpack it"),
    "a tar": (tar_of(CSV.encode()), "is a tar archive. Unpack it"),
    "a compressed tar": (gzip.compress(tar_of(CSV.encode())), "is a tar archive. Unpack it"),
    "UTF-16 without a mark": (CSV.encode("utf-16-le"), "or text in UTF-16 without its mark"),
    "Latin 1": (CSV.replace("plain", "pläin").encode("latin-1"), "is not text in UTF-8. Save it so"),
    "a picture": (b"\x89PNG\r\n\x1a\n", "is a picture, not a log. Give CSV"),
    "nothing": (b"", "is empty. Give a file with a header and rows"),
    "a line with a cell too many": (
        CSV.replace("\n", ",,1\n", 2).replace(",,1", "", 1).encode(), "line 2 has 8 cells, but",
    ),
    "two losses": (CSV.replace("tokens", "loss").encode(), "there are two columns 'loss'. Keep one"),
    "times for steps": (
        plain().with_columns(step=pl.lit("2026-05-01 10:00")).write_csv().encode(),
        "is a time, not a number: name the column of numbers with --map step=COLUMN",
    ),
    "a unit in a cell": (CSV.replace("1000,", "1k,").encode(), "is not a number: write it plainly"),
    "a list for a loss": (
        parquet_of(plain().with_columns(pl.concat_list("loss").alias("loss"))),
        "the column 'loss' holds List",
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", REFUSED)
def test_what_cannot_be_read_is_said_in_one_sentence(tmp_path, form):
    content, said = REFUSED[form]
    path = tmp_path / "log"
    path.write_bytes(content)
    assert said in sentence(path)


def test_filters_know_columns_and_settings(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(CSV)
    assert "--filter stepp=1: there is no column or setting 'stepp'; did you mean 'step'?" in sentence(
        path, filters=["stepp=1"]
    )
    assert "no row is left; variant has plain, wide" in sentence(path, filters=["variant=c"])
    assert "write COLUMN=VALUE" in sentence(path, filters=["variant"])
    assert "Only = and != compare texts" in sentence(path, filters=["step>x"])
    logs = read(path, filters=["step>=20", "step<40", "seed!=1", "variant==wide"])
    assert logs.frame.select("variant", "seed", "step").rows() == [("wide", 0, 20), ("wide", 0, 30)]
    assert logs.notes == ("--filter leaves 2 of 16 rows",)


def test_an_arm_that_is_missing_at_a_scale_is_no_direction_there(tmp_path, capsys):
    both = pl.concat([plain(), plain().with_columns(scale=pl.lit("m"), tokens=pl.col("tokens") * 9)])
    path = tmp_path / "log.csv"
    both.filter(~((pl.col("variant") == "wide") & (pl.col("scale") == "m"))).write_csv(path)
    assert cli.main(["compare", "--curves", str(path), "--decayed", "last", "--json"]) == 0
    rungs = {rung["scale"]: rung for rung in json.loads(capsys.readouterr().out)["rungs"]}
    assert (rungs["m"]["n"], rungs["m"]["decision"]) == (0, "INCONCLUSIVE")
