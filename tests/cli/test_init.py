"""A project of a user's own: what is written, that it composes and trains, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from harness import cli
from harness.cli.new_project.text_file import read_text
from harness.cli.verbs.init import COMMAND
from harness.config.compose import compose
from tests.cli.support import run
from tests.schemas.valid import check_output

SEARCHPATH = "hydra.searchpath=[file://conf]"
WORDS = "the quick brown fox jumps over a lazy dog while seven wizards box with five liquor jugs"
SHORT = ("scale=xs", "seed=0,1", "scale.tokens=15_360", "schedule.branches=[]")


def own_text(path: Path, column: str = "text", documents: int = 300) -> Path:
    """Write documents of sentences, about 300 bytes each."""
    words = WORDS.split()
    texts = [" ".join(words[(i * j) % len(words)] for j in range(1, 60)) for i in range(1, documents + 1)]
    path.write_text("".join(json.dumps({"id": f"n{i}", column: text}) + "\n" for i, text in enumerate(texts)))
    return path


def test_a_project_holds_a_question_that_composes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = own_text(tmp_path / "my.jsonl", "content")
    assert cli.main(["init", "mine", "--text", "my.jsonl"]) == 0
    printed = capsys.readouterr().out
    assert f"  cd mine\n  {COMMAND}\n" in printed
    assert "the column content" in printed
    files = {str(path.relative_to("mine")) for path in Path("mine").rglob("*") if path.is_file()}
    assert {f"  {file}" for file in files} <= {*printed.splitlines()}
    assert {"README.md", "my_attention.py", "conf/data/mine.yaml"} <= files
    monkeypatch.chdir("mine")
    config = compose(["experiment=mine", "variant=mine", SEARCHPATH])
    source = config.data.sources["mine"]
    assert (source.path, source.column) == (str(text), "content")
    assert config.model.attention.name == "mine"
    assert config.evaluation.tokens * 2 < text.stat().st_size * config.data.holdout, "held out is enough"
    assert (config.imports, config.experiment_name) == (["my_attention"], "mine")
    swept = yaml.safe_load(Path("conf/experiment/mine.yaml").read_text())["hydra"]["sweeper"]["params"]
    assert swept["variant"] == "mha,mine"


def test_without_a_text_it_trains_on_prose_that_ships(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init", "."]) == 0
    assert compose(["experiment=mine", "variant=mha", SEARCHPATH]).data.sources["mine"].path == "pack:prose"


@pytest.mark.slow
def test_a_verdict_on_ones_own_text_by_the_printed_command(tmp_path):
    own_text(tmp_path / "my.jsonl", "body")
    assert run("init", "mine", "--text", "my.jsonl", folder=tmp_path)[0] == 0
    words = ("sweep", "experiment=mine", SEARCHPATH, *SHORT, "--json")
    status, output, errors = run(*words, folder=tmp_path / "mine", seconds=600)
    assert status == 0, errors
    comparison = check_output(output, "compare")
    assert [(row["variant"], len(row["pairs"])) for row in comparison["rungs"]] == [("mine", 2)]
    _, again, _ = run("compare", "runs/mine", "--json", folder=tmp_path / "mine")
    without_times = [{**json.loads(text), "times": None} for text in (output, again)]
    assert without_times[0] == without_times[1]
    assert "runs/mine/report.html" in errors, "the lines of the sweep go to standard error"


@pytest.mark.parametrize(
    ("content", "column"),
    [
        ('{"text": "a", "body": "longer"}', "text"),
        ('{"id": "1", "body": "longer"}', "body"),
        ('\ufeff{"id": "1", "body": "longer", "n": 3}', "body"),
    ],
)
def test_the_column_of_the_texts_is_told(content, column, tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text(f"{content}\n" * 2000)
    assert read_text(str(file), None).column == column
    assert read_text(str(file), "id").column == "id"


def test_a_table_of_parquet_and_a_folder_are_texts_too(tmp_path):
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table({"url": ["u"] * 50, "page": ["long text " * 900] * 50})
    parquet.write_table(table, tmp_path / "a.parquet", compression="none", use_dictionary=False)
    assert read_text(str(tmp_path / "a.parquet"), None).column == "page"
    text = read_text(str(tmp_path), None)
    assert (text.path, text.column) == (str(tmp_path), "text")
    assert read_text("hf://datasets/NAME/CORPUS", None).path == "hf://datasets/NAME/CORPUS"


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("a.csv", "text\nhello\n", "give .txt, .jsonl, .json or .parquet"),
        ("a.jsonl", "hello\n", "line 1 is not a JSON object. Write each document as a line"),
        ("a.jsonl", '[{"text": "a"}]\n', "line 1 is not a JSON object"),
        ("a.jsonl", '{"n": 1}\n', "no column holds texts (columns: n)"),
        ("a.jsonl", "", "no column holds texts (columns: none)"),
        ("a.txt", "hello", "5 bytes are too little to train and to evaluate on. Give at least 8 kB"),
        ("a.parquet", "hello", "this is not a Parquet file"),
        (None, "", "there is no such file or folder"),
    ],
)
def test_what_is_no_text_is_refused_before_anything_is_written(
    file, content, sentence, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    if file:
        Path(file).write_text(content)
    assert cli.main(["init", "mine", "--text", file or "none.jsonl"]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not Path("mine").exists()


def test_what_is_there_is_never_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full", "notes").write_text("mine")
    assert cli.main(["init", "full"]) == 2
    assert "full is not empty, and nothing in it is overwritten" in capsys.readouterr().err
    assert os.listdir("full") == ["notes"]
    assert cli.main(["init", "full/notes"]) == 2
    assert "full/notes is a file" in capsys.readouterr().err
    assert cli.main(["init", "full/notes/new"]) == 2
    assert "Choose a folder in which you can write." in capsys.readouterr().err
    assert cli.main(["init", "new", "--column", "x"]) == 2
    assert "--column goes with --text" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_access_is_one_sentence(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert cli.main(["init", str(tmp_path / "mine")]) == 2
    assert "Permission denied. Choose a folder in which you can write." in capsys.readouterr().err
