"""Small files of each recipe of docs/data.md, by the path that it names. All hold the same documents."""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.data.documents.read_documents import END_OF_TEXT
from tests.data.conftest import documents, write
from tests.docs.documents import ROOT

TEXTS = documents("recipe")
VOCABULARY, END = 50_257, 50_256
CUT = 100
"""Documents before the validation file of the recipe that has one."""
Maker = Callable[[Path], object]


@functools.cache
def token_documents() -> list[np.ndarray]:
    """Return documents of tokens that differ, each with the token that ends it."""
    draw = np.random.default_rng(0)
    drawn = [draw.integers(0, END, draw.integers(20, 60)) for _ in TEXTS]
    return [np.append(tokens, END) for tokens in drawn]


def flat(kind: str, items: Sequence[np.ndarray] | None = None) -> np.ndarray:
    """Return the tokens of documents one after another."""
    return np.concatenate(token_documents() if items is None else items).astype(kind)


def lines(nest: Callable[[str], object]) -> bytes:
    return "".join(json.dumps(nest(text)) + "\n" for text in TEXTS).encode()


def parquet(path: Path, column: pa.Array, name: str = "text") -> None:
    pq.write_table(pa.table({name: column}), path)


def folder(path: Path) -> None:
    """Make a folder with a part in a folder of its own, and files that are none of it."""
    (path / "part").mkdir(parents=True)
    write(path / "a.txt", TEXTS[:40])
    (path / "part" / "b.jsonl.gz").write_bytes(
        gzip.compress("".join(json.dumps({"text": text}) + "\n" for text in TEXTS[40:]).encode())
    )
    (path / "README.md").write_text("a card")
    (path / ".hidden.txt").write_text("hidden")


def llm_c(path: Path) -> None:
    """Make two shards of llm.c."""
    path.mkdir()
    for name, part in (("train_000001.bin", slice(0, 60)), ("train_000002.bin", slice(60, None))):
        tokens, header = flat("<u2", token_documents()[part]), np.zeros(256, "<i4")
        header[:3] = 20240520, 1, len(tokens)
        (path / name).write_bytes(header.tobytes() + tokens.tobytes())


def nanogpt(path: Path) -> None:
    """Make the two files of nanoGPT's prepare.py."""
    flat("<u2", token_documents()[:CUT]).tofile(path)
    flat("<u2", token_documents()[CUT:]).tofile(path.with_name("val.bin"))


def megatron(prefix: Path) -> None:
    """Make a pair of files by the layout of Megatron-LM."""
    flat("<u2").tofile(prefix.with_name(f"{prefix.name}.bin"))
    length_D = np.array([len(tokens) for tokens in token_documents()], "<i4")
    first_D = 2 * (np.cumsum(length_D) - length_D).astype("<i8")
    count = len(length_D)
    head = b"MMIDIDX\x00\x00" + np.uint64(1).tobytes() + np.uint8(8).tobytes()
    head += np.array([count, count + 1], "<u8").tobytes()
    tail = length_D.tobytes() + first_D.tobytes() + np.arange(count + 1, dtype="<i8").tobytes()
    prefix.with_name(f"{prefix.name}.idx").write_bytes(head + tail)


def npy(path: Path) -> None:
    """Make two shards of NumPy."""
    path.mkdir()
    for name, part in (("0.npy", slice(0, 60)), ("1.npy", slice(60, None))):
        np.save(path / name, flat("<u4", token_documents()[part]))


def saved(path: Path) -> None:
    """Make the files that `datasets.save_to_disk` writes."""
    path.mkdir()
    table = pa.table({"input_ids": pa.array([tokens.tolist() for tokens in token_documents()])})
    with pa.ipc.new_stream(path / "data-00000-of-00001.arrow", table.schema) as stream:
        stream.write_table(table)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": "train"}
    (path / "state.json").write_text(json.dumps(state))


def array_record(path: Path) -> None:
    """Write records by the library itself."""
    module = pytest.importorskip(
        "array_record.python.array_record_module", reason="make test-data installs it"
    )
    writer = module.ArrayRecordWriter(str(path), "group_size:1")
    for tokens in token_documents():
        writer.write(tokens.astype("<u2").tobytes())
    writer.close()


def levanter(path: Path) -> None:
    """Make the arrays of a cache of Levanter."""
    import tensorstore

    ends_D = np.cumsum([len(tokens) for tokens in token_documents()])
    arrays = {"data": flat("<i4"), "offsets": np.array([len(ends_D), *ends_D], "<i8")}
    for name, values in arrays.items():
        spec = {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": f"{path}/input_ids/{name}/"},
            "metadata": {"shape": [len(values)], "data_type": values.dtype.name},
        }
        tensorstore.open(spec, create=True).result().write(values).result()


MAKERS: dict[str, Maker] = {
    "corpus.txt": lambda path: write(path, TEXTS),
    "corpus.jsonl": lambda path: path.write_bytes(lines(lambda text: {"text": text})),
    "corpus.jsonl.zst": lambda path: path.write_bytes(zst(lines(lambda text: {"text": text}))),
    "pages.jsonl": lambda path: path.write_bytes(lines(lambda text: {"content": text})),
    "nested.jsonl": lambda path: path.write_bytes(lines(lambda text: {"page": {"body": text}})),
    "corpus.parquet": lambda path: parquet(path, pa.array(TEXTS)),
    "nested.parquet": lambda path: parquet(path, pa.array([{"body": text} for text in TEXTS]), "page"),
    "shards": folder,
    "llm_c": llm_c,
    "train.bin": nanogpt,
    "corpus_text_document": megatron,
    "npy": npy,
    "saved": saved,
    "corpus.array_record": array_record,
    "levanter/train": levanter,
}


def make_files(folder: Path) -> None:
    """Make the files that the commands of the page read, of shipped texts."""
    for name, texts in (("corpus", shipped("prose", 20_000)), ("code", shipped("code"))):
        lines_of = [json.dumps({"text": text}) + "\n" for text in texts]
        (folder / f"{name}.jsonl").write_text("".join(lines_of))
    parquet(folder / "corpus.parquet", pa.array(shipped("prose")))
    write(folder / "questions.txt", shipped("maths_qa"))


def shipped(name: str, characters: int = 1000) -> list[str]:
    """Return the beginnings of the documents of a shipped text."""
    with pa.input_stream(ROOT / f"harness/data/pack/{name}.txt.zst", compression="zstd") as stream:
        texts = bytes(stream.read()).decode().split(f"\n{END_OF_TEXT}\n")
    return [text[:characters] for text in texts[:120]]


def zst(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()
