"""Writers of the same documents in every format, by descriptions of the formats: no code of the harness."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorstore

from harness.config.schema.data import SourceConfig

END, VOCABULARY = 500, 501
Documents = Sequence[np.ndarray]
Writer = Callable[[Path, Documents], SourceConfig]


def make_documents(count: int = 60, seed: int = 0, longest: int = 90) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return [draw.integers(0, END, draw.integers(1, longest)) for _ in range(count)]


def with_ends(documents: Documents) -> np.ndarray:
    return np.concatenate([np.append(document, END) for document in documents])


def cuts(tokens: np.ndarray, count: int = 3) -> list[np.ndarray]:
    """Shards that cut documents in two."""
    return np.array_split(tokens, count)


def write_llm_c(file: Path, tokens: np.ndarray, magic: int = 20240520, count: int | None = None) -> Path:
    version, dtype = {20240520: (1, "<u2"), 20240801: (7, "<u4")}[magic]
    header = struct.pack("<256i", magic, version, len(tokens) if count is None else count, *[0] * 253)
    file.write_bytes(header + tokens.astype(dtype).tobytes())
    return file


def write_megatron(prefix: Path, documents: Documents, code: int = 8, dtype: str = "<u2") -> Path:
    """Each document is a sequence, as preprocess_data.py writes them, but the first, which is two."""
    sequences = [documents[0][:1], documents[0][1:], *documents[1:]]
    lengths = [len(sequence) for sequence in sequences]
    tokens = np.concatenate(sequences).astype(dtype)
    pointers = np.cumsum([0, *lengths[:-1]]) * tokens.dtype.itemsize
    first = [0, *range(2, len(sequences) + 1)]
    prefix.with_suffix(".bin").write_bytes(tokens.tobytes())
    prefix.with_suffix(".idx").write_bytes(
        b"MMIDIDX\0\0"
        + struct.pack("<QBQQ", 1, code, len(sequences), len(first))
        + np.array(lengths, "<i4").tobytes()
        + pointers.astype("<i8").tobytes()
        + np.array(first, "<i8").tobytes()
    )
    return prefix


def write_arrow(file: Path, batches: Sequence[pa.Array], stream: bool = True, **options) -> Path:
    schema = pa.schema([("input_ids", batches[0].type)])
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with new(str(file), schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for batch in batches:
            writer.write_batch(pa.record_batch([batch], schema=schema))
    return file


def write_zarr(folder: Path, tokens: np.ndarray, driver: str = "zarr3") -> Path:
    chunks = [64, *tokens.shape[1:]]
    metadata = {"chunks": chunks} if driver == "zarr" else {"chunk_grid": _grid(chunks)}
    return _write_array(folder, tokens, driver, metadata, list(tokens.shape))


def write_levanter(folder: Path, tokens: np.ndarray) -> Path:
    """An array of a cache of Levanter (levanter/store/jagged_array.py): sharded, compressed, and much longer
    than what is written in it."""
    inner = {"chunk_shape": [2**18], "codecs": [{"name": "blosc", "configuration": {"clevel": 5}}]}
    codecs = [{"name": "sharding_indexed", "configuration": inner}]
    return _write_array(folder, tokens, "zarr3", {"chunk_grid": _grid([2**27]), "codecs": codecs}, [2**54])


def _grid(chunks: list[int]) -> dict:
    return {"name": "regular", "configuration": {"chunk_shape": chunks}}


def _write_array(folder: Path, tokens: np.ndarray, driver: str, metadata: dict, shape: list[int]) -> Path:
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{folder}/"}, "metadata": metadata}
    array = tensorstore.open(spec, create=True, dtype=tokens.dtype.name, shape=shape).result()
    array[: len(tokens)].write(tokens).result()
    return folder


def _llm_c(folder: Path, documents: Documents) -> SourceConfig:
    """The end token comes before each document, as in llm.c and modded-nanogpt, and shards cut documents."""
    tokens = np.concatenate([np.insert(document, 0, END) for document in documents])
    for number, shard in enumerate(cuts(tokens)):
        write_llm_c(folder / f"train_{number:06}.bin", shard)
    return SourceConfig(str(folder))


def _llama3(folder: Path, documents: Documents) -> SourceConfig:
    return SourceConfig(str(write_llm_c(folder / "train.bin", with_ends(documents), 20240801)))


def _nanogpt(folder: Path, documents: Documents) -> SourceConfig:
    with_ends(documents).astype("<u2").tofile(folder / "train.bin")
    return SourceConfig(str(folder / "train.bin"), format="nanogpt", options={"dtype": "uint16"})


def _megatron(folder: Path, documents: Documents) -> SourceConfig:
    return SourceConfig(str(write_megatron(folder / "data_text_document", documents, 4, "<i4")))


def _megatron_with_ends(folder: Path, documents: Documents) -> SourceConfig:
    ended = [np.append(document, END) for document in documents]
    half = len(ended) // 2
    write_megatron(folder / "a", ended[:half])
    write_megatron(folder / "b", ended[half:])
    return SourceConfig(str(folder))


def _npy(folder: Path, documents: Documents) -> SourceConfig:
    for number, shard in enumerate(cuts(with_ends(documents), 5)):
        np.save(folder / f"shard_{number}.npy", shard.astype(np.uint16))
    return SourceConfig(str(folder))


def _npy_rows(folder: Path, documents: Documents) -> SourceConfig:
    """Rows of one length: the last row is filled with end tokens."""
    tokens = with_ends(documents)
    rows = np.append(tokens, np.full(-len(tokens) % 64, END)).reshape(-1, 64)
    np.save(folder / "rows.npy", rows)
    return SourceConfig(str(folder / "rows.npy"))


def _arrow_stream(folder: Path, documents: Documents) -> SourceConfig:
    batches = [pa.array(documents[i : i + 7], pa.list_(pa.int32())) for i in range(0, len(documents), 7)]
    return SourceConfig(str(write_arrow(folder / "data.arrow", batches)))


def _arrow_slices(folder: Path, documents: Documents) -> SourceConfig:
    """Slices, missing rows and large lists, in a file of Arrow."""
    junk = [np.arange(5)]
    rows = pa.array([*junk, None, *documents, *junk], pa.large_list(pa.int64()))[1:-1]
    return SourceConfig(str(write_arrow(folder / "data.arrow", [rows[:20], rows[20:]], stream=False)))


def _arrow_packed(folder: Path, documents: Documents) -> SourceConfig:
    tokens = with_ends(documents)
    rows = np.append(tokens, np.full(-len(tokens) % 32, END)).astype(np.uint16)
    packed = pa.FixedSizeListArray.from_arrays(pa.array(rows), 32)
    return SourceConfig(str(write_arrow(folder / "data.arrow", [packed[:9], packed[9:]])))


def _arrow_folder(folder: Path, documents: Documents) -> SourceConfig:
    """The folder of `datasets.save_to_disk`, with shards that are not in alphabetical order."""
    names, half = ["data-b.arrow", "data-a.arrow"], len(documents) // 2
    for name, part in zip(names, (documents[:half], documents[half:]), strict=True):
        write_arrow(folder / name, [pa.array(part, pa.list_(pa.int32()))])
    files = [{"filename": name} for name in names]
    (folder / "state.json").write_text(json.dumps({"_data_files": files}))
    (folder / "dataset_info.json").write_text("{}")
    return SourceConfig(str(folder))


def _array_record(folder: Path, documents: Documents) -> SourceConfig:
    module = pytest.importorskip("array_record.python.array_record_module", reason="needs array_record")
    writer = module.ArrayRecordWriter(str(folder / "a.array_record"), "group_size:1")
    for document in documents:
        writer.write(document.astype("<u4").tobytes())
    writer.close()
    return SourceConfig(str(folder), options={"dtype": "uint32"})


def _zarr(folder: Path, documents: Documents) -> SourceConfig:
    return SourceConfig(str(write_zarr(folder / "tokens.zarr", with_ends(documents).astype(np.uint16))))


def _zarr2_rows(folder: Path, documents: Documents) -> SourceConfig:
    tokens = with_ends(documents)
    rows = np.append(tokens, np.full(-len(tokens) % 16, END)).astype(np.int32).reshape(-1, 16)
    return SourceConfig(str(write_zarr(folder / "tokens.zarr", rows, "zarr")))


def _levanter(folder: Path, documents: Documents) -> SourceConfig:
    """The first of the offsets is the number of documents."""
    offsets = np.cumsum([len(document) for document in documents])
    write_levanter(folder / "input_ids" / "data", np.concatenate(documents).astype(np.int32))
    write_levanter(folder / "input_ids" / "offsets", np.append(len(documents), offsets))
    (folder / "shard_ledger.json").write_text("{}")
    return SourceConfig(str(folder))


WRITERS: dict[str, Writer] = {
    "llm_c": _llm_c,
    "llama3": _llama3,
    "nanogpt": _nanogpt,
    "megatron": _megatron,
    "megatron_with_ends": _megatron_with_ends,
    "npy": _npy,
    "npy_rows": _npy_rows,
    "arrow_stream": _arrow_stream,
    "arrow_slices": _arrow_slices,
    "arrow_packed": _arrow_packed,
    "arrow_folder": _arrow_folder,
    "array_record": _array_record,
    "zarr": _zarr,
    "zarr2_rows": _zarr2_rows,
    "levanter": _levanter,
}
