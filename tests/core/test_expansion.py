"""A small file that stands for a large one: read up to a limit that is told, with the way to lift it."""

from __future__ import annotations

import gzip
import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.compare.inputs.log_files import FileReading, read_log_file
from harness.config.schema.data import SourceConfig
from harness.core.errors import UserError
from harness.core.files import expansion
from harness.data.images.pixels import read_images
from harness.data.text_sources.source import IMAGE_SUFFIXES, find_source
from harness.records.paths import RunDir
from harness.records.remote.local_copy import fetch_sweep
from harness.records.run import metrics

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


def archive_of(folder: Path, kind: str) -> str:
    """A URL of an archive that holds a sweep whose ledger expands a thousandfold."""
    (folder / "trial" / "xs" / "mha" / "seed0").mkdir(parents=True)
    (folder / "trial" / "xs" / "mha" / "seed0" / "run.json").write_text("{}")
    (folder / "trial" / "sweep.json").write_bytes(bytes(2**20))
    shutil.make_archive(str(folder / "a"), kind, folder, "trial")
    name, protocol = ("a.zip", "zip") if kind == "zip" else ("a.tar.gz", "tar")
    return f"{protocol}://trial::file://{folder / name}"


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_an_archive_that_expands_without_end_is_not_copied(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "cache"))
    url = archive_of(tmp_path, kind)
    with pytest.raises(UserError, match=r"trial::file.* expands to more than .*AB_HARNESS_MAX_EXPANSION=inf"):
        fetch_sweep(url)
    monkeypatch.setenv(expansion.VARIABLE, "inf")
    assert (fetch_sweep(url).path / "sweep.json").stat().st_size == 2**20


def long_log(path: Path) -> Path:
    path.write_bytes(gzip.compress(b"step,loss\n" + b"1,2\n" * 2**18))
    return path


def long_table(path: Path) -> Path:
    pl.DataFrame({"step": [1] * 10**5, "loss": [2.0] * 10**5}).write_parquet(path)
    return path


@pytest.mark.parametrize(("name", "make"), [("a.csv.gz", long_log), ("a.parquet", long_table)])
def test_a_log_that_expands_without_end_is_refused(name, make, tmp_path, monkeypatch):
    path = make(tmp_path / name)
    with pytest.raises(
        UserError, match=rf"{name} has .* expands to more than .*AB_HARNESS_MAX_EXPANSION=inf"
    ):
        read_log_file(path, FileReading({"step", "loss"}.__contains__))
    monkeypatch.setenv(expansion.VARIABLE, "inf")
    assert read_log_file(path, FileReading({"step", "loss"}.__contains__)).frame.height >= 10**5


def test_metrics_are_read_up_to_the_rows_that_a_file_can_mean(tmp_path, monkeypatch):
    kind, run = "steps", RunDir(tmp_path)
    honest = metrics.write_part(run, kind, 0, 2, [dict.fromkeys(metrics.SCHEMAS[kind], 1)] * 2)
    assert metrics.read_parts([honest], kind).height == 2
    columns = [pl.Series(name, [1] * 10**5, kind) for name, kind in metrics.SCHEMAS[kind].items()]
    pl.DataFrame(columns).write_parquet(honest.path)
    assert 0 < metrics.read_parts([honest], kind).height < 10**5
    monkeypatch.setenv(expansion.VARIABLE, "inf")
    assert metrics.read_parts([honest], kind).height == 10**5
