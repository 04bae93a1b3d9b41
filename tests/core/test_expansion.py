"""A small file that stands for a large one: read up to a limit that is told, with the way to lift it."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.config.schema.run import SourceConfig
from harness.core.errors import UserError
from harness.core.files import expansion
from harness.data.images.pixels import read_images
from harness.data.text.sources import IMAGE_SUFFIXES, find_source

LINE = b'{"text": "a"}\n'


@pytest.fixture(autouse=True)
def low_limit(monkeypatch):
    monkeypatch.setattr(expansion, "FREE_BYTES", 2**16)


def gzipped(path: Path) -> Path:
    path.write_bytes(gzip.compress(LINE * 2**15))
    return path


def zstandard(path: Path) -> Path:
    path.write_bytes(pa.compress(LINE * 2**15, "zstd", asbytes=True))
    return path


def endless_line(path: Path) -> Path:
    path.write_bytes(pa.compress(bytes(2**22), "zstd", asbytes=True))
    return path


def repeated_value(path: Path) -> Path:
    rows = pa.DictionaryArray.from_arrays(pa.array(np.zeros(2000, np.int32)), pa.array(["x" * 10**4]))
    pq.write_table(pa.table({"text": rows}), path)
    return path


def compressed_pages(path: Path) -> Path:
    pq.write_table(pa.table({"text": ["y" * 10**6] * 8}), path, compression="zstd", use_dictionary=False)
    return path


BOMBS = {
    "a.jsonl.gz": gzipped,
    "a.jsonl.zst": zstandard,
    "a.txt.zst": endless_line,
    "a.parquet": repeated_value,
    "b.parquet": compressed_pages,
}


@pytest.mark.parametrize(("name", "make"), BOMBS.items(), ids=BOMBS)
def test_a_text_that_expands_without_end_is_refused(name, make, tmp_path, monkeypatch):
    path = make(tmp_path / name)
    monkeypatch.setenv(expansion.VARIABLE, "20")
    source = find_source("s", SourceConfig(str(path)))
    message = rf"data.sources.s.path=.*{name} has .* expands to more than .*set AB_HARNESS_MAX_EXPANSION=inf"
    with pytest.raises(UserError, match=message):
        for _ in source.documents():
            pass
    monkeypatch.setenv(expansion.VARIABLE, "inf")
    assert sum(1 for _ in source.documents())


def test_images_that_expand_without_end_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(expansion.VARIABLE, "20")
    path = tmp_path / "a.npz"
    np.savez_compressed(path, images=np.zeros((10**4, 28, 28), np.uint8))
    source = find_source("s", SourceConfig(str(path)), IMAGE_SUFFIXES)
    with pytest.raises(UserError, match=r"expands to more than .*AB_HARNESS_MAX_EXPANSION=inf"):
        read_images(source)
    monkeypatch.setenv(expansion.VARIABLE, "inf")
    assert len(read_images(source).images_NHWC) == 10**4


@pytest.mark.parametrize("shape", [(10**15, 28, 28), (10**6, 28, 28)])
def test_images_that_claim_more_than_there_is_are_refused(tmp_path, shape):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue() + b"few")
    with pytest.raises(UserError, match=r"cannot be read: it is damaged"):
        read_images(find_source("s", SourceConfig(str(tmp_path / "a.npz")), IMAGE_SUFFIXES))


def test_an_honest_file_is_read_in_full(tmp_path):
    lines = b"".join(b'{"text": "%d"}\n' % number for number in range(10**4))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    documents = list(find_source("s", SourceConfig(str(tmp_path / "a.jsonl.gz"))).documents())
    assert documents == [str(number) for number in range(10**4)]


@pytest.mark.parametrize("value", ["0.5", "many", "nan", "-1"])
def test_a_bad_limit_is_one_sentence(monkeypatch, value):
    monkeypatch.setenv(expansion.VARIABLE, value)
    with pytest.raises(UserError, match=f"AB_HARNESS_MAX_EXPANSION={value}: out of range. Give a number"):
        expansion.expansion_limit(1)
