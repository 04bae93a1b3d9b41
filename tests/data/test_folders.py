"""Folders as people have them: links, hidden files, compressed copies, and names of what is not read."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from harness.config.schema.data import SourceConfig
from harness.core.errors import UserError
from harness.core.files.folder_walk import list_files
from harness.data.text_sources.source import Source, find_source
from harness.data.text_sources.source_hash import content_hash


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "texts" / "sub").mkdir(parents=True)
    (tmp_path / "texts" / "a.txt").write_text("first")
    (tmp_path / "texts" / "sub" / "b.txt").write_text("second")
    return tmp_path / "texts"


def source(folder: Path) -> Source:
    return find_source("s", SourceConfig(str(folder)))


def read(folder: Path) -> list[str]:
    return list(source(folder).documents())


def test_a_linked_folder_is_read(folder, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "c.txt").write_text("third")
    (folder / "link").symlink_to(tmp_path / "other")
    assert read(folder) == ["first", "third", "second"]
    assert source(folder).skipped == ()


def test_links_in_a_circle_end_and_repeat_nothing(folder):
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "again").symlink_to(folder / "sub")
    (folder / "0.txt").symlink_to(folder / "a.txt")
    (folder / "gone.txt").symlink_to(folder / "nowhere.txt")
    assert read(folder) == ["first", "second"]
    assert source(folder).skipped == ("3 linked again (again, ...)", "1 linked to nothing (gone.txt)")


def test_a_link_beside_its_file_changes_no_fingerprint(folder):
    before = content_hash(source(folder))
    (folder / "0.txt").symlink_to(folder / "a.txt")
    assert content_hash(source(folder)) == before


def test_a_link_whose_target_has_another_name_is_read(folder, tmp_path):
    """As in a cache that keeps files under their hash."""
    (folder / "a.txt").rename(folder / "5f1e")
    (folder / "a.txt").symlink_to(folder / "5f1e")
    assert read(folder) == ["first", "second"]


@pytest.mark.parametrize("name", [".hidden.txt", "sub/._b.txt", ".ipynb_checkpoints/a-checkpoint.txt"])
def test_hidden_files_and_folders_are_left_out(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("hidden")
    assert read(folder) == ["first", "second"]
    assert source(folder).skipped == (f"1 hidden ({name.split('/a')[0]})",)


def test_a_hidden_folder_that_is_named_is_read(tmp_path):
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "a.txt").write_text("asked for")
    assert read(tmp_path / ".cache") == ["asked for"]


def test_a_compressed_copy_is_not_read_beside_its_file_and_read_alone(folder):
    (folder / "a.txt.gz").write_bytes(gzip.compress(b"first"))
    assert read(folder) == ["first", "second"]
    assert source(folder).skipped == ("1 compressed beside its plain file (a.txt.gz)",)
    (folder / "a.txt").unlink()
    assert read(folder) == ["first", "second"]
    members = [b'{"text": "in JSON"}\n', b'{"text": "another member"}\n']
    (folder / "c.jsonl.gz").write_bytes(b"".join(map(gzip.compress, members)))
    assert read(folder) == ["first", "in JSON", "another member", "second"]


def test_files_of_another_kind_are_named(folder):
    for name in ("README.md", "list.csv"):
        (folder / name).write_text("x")
    assert source(folder).skipped == ("2 of another kind (README.md, ...)",)
    (folder / "a.txt").unlink()
    (folder / "sub" / "b.txt").unlink()
    with pytest.raises(UserError, match=r"no readable file. Give .txt.* It holds 2 of another kind"):
        source(folder)


def test_a_pipe_does_not_block(folder):
    os.mkfifo(folder / "pipe.txt")
    assert read(folder) == ["first", "second"]


def test_a_folder_that_cannot_be_listed_is_told(folder, monkeypatch):
    real = os.scandir

    def closed(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(UserError, match=r"sub cannot be listed \(Permission denied\)"):
        source(folder)


def test_the_order_is_that_of_the_paths(folder):
    (folder / "sub.txt").write_text("x")
    listed = list_files(folder).files
    assert listed == sorted(path for path in folder.rglob("*") if path.is_file())


LEFT = [
    "a.txt~",
    "#a.txt#",
    ".a.txt.swp",
    "a.txt.bak",
    "Thumbs.db",
    "_SUCCESS",
    "~$b.txt",
    "_temporary/0/c.txt",
]


@pytest.mark.parametrize("name", LEFT)
def test_files_of_editors_and_systems_are_left_out_and_named(folder, name):
    (folder / name).parent.mkdir(exist_ok=True, parents=True)
    (folder / name).write_text("no document")
    assert read(folder) == ["first", "second"]
    kind = "hidden" if name[0] == "." else "left by editors or systems"
    assert source(folder).skipped == (f"1 {kind} ({name.split('/')[0]})",)


def test_json_beside_other_files_describes_them(folder):
    (folder / "dataset_infos.json").write_text('{\n  "default": {}\n}\n')
    assert read(folder) == ["first", "second"]
    assert source(folder).skipped == ("1 that describe the data (dataset_infos.json)",)


def test_json_alone_is_documents_besides_what_describes_them(tmp_path):
    (tmp_path / "c4-train.00000-of-00002.json.gz").write_bytes(gzip.compress(b'{"text": "first"}\n'))
    (tmp_path / "c4-train.00001-of-00002.json").write_text('{"text": "second"}\n')
    (tmp_path / "dataset_infos.json").write_text("{\n}\n")
    assert read(tmp_path) == ["first", "second"]
    assert source(tmp_path).skipped == ("1 that describe the data (dataset_infos.json)",)
