"""Files that the formats' own libraries write. They are no dependencies: a test whose library is missing is
skipped; `make test-data` installs them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.config.schema.data import SourceConfig
from harness.data.codecs.codec import UnknownCodec
from harness.data.formats.open_token_files import find_token_source, open_token_files
from tests.data.formats.write_formats import END, VOCABULARY, make_documents, with_ends

CODEC = UnknownCodec(VOCABULARY, END)
DOCUMENTS = make_documents()


def assert_holds_the_documents(config: SourceConfig) -> None:
    tokens = open_token_files(find_token_source("s", config), CODEC, 0.0)
    assert np.array_equal(tokens.train.read(), with_ends(DOCUMENTS))


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint16"])
def test_datasets_save_to_disk(dtype, tmp_path):
    datasets = pytest.importorskip("datasets", reason="needs datasets")
    features = datasets.Features({"input_ids": datasets.Sequence(datasets.Value(dtype))})
    rows = {"input_ids": [document.tolist() for document in DOCUMENTS]}
    table = datasets.Dataset.from_dict(rows, features=features)
    table.save_to_disk(str(tmp_path / "plain"))
    table.save_to_disk(str(tmp_path / "shards"), num_shards=3)
    for name in ("plain", "shards"):
        assert_holds_the_documents(SourceConfig(str(tmp_path / name)))
    (shard,) = (tmp_path / "plain").glob("*.arrow")
    assert_holds_the_documents(SourceConfig(str(shard)))


def test_datasets_that_were_selected_and_mapped(tmp_path):
    datasets = pytest.importorskip("datasets", reason="needs datasets")
    rows = [
        {"id": i, "input_ids": document.tolist()} for i, document in enumerate([*DOCUMENTS, DOCUMENTS[0]])
    ]
    table = datasets.Dataset.from_list(rows).select(range(len(DOCUMENTS))).map(lambda row: {"n": row["id"]})
    table.save_to_disk(str(tmp_path / "mapped"))
    assert_holds_the_documents(SourceConfig(str(tmp_path / "mapped")))


@pytest.mark.parametrize("chunks", [{"chunks": (100,)}, {"chunks": (64,), "shards": (640,)}])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_arrays(zarr_format, chunks, tmp_path):
    zarr = pytest.importorskip("zarr", reason="needs zarr")
    if zarr_format == 2:
        chunks = {"chunks": chunks["chunks"]}
    tokens = with_ends(DOCUMENTS).astype(np.uint16)
    path = str(tmp_path / "a.zarr")
    array = zarr.create_array(path, shape=tokens.shape, dtype="uint16", zarr_format=zarr_format, **chunks)
    array[:] = tokens
    assert_holds_the_documents(SourceConfig(path))


@pytest.mark.parametrize("options", ["group_size:1", "group_size:16,zstd:3", "group_size:4,uncompressed"])
def test_array_record_of_plain_tokens(options, tmp_path):
    module = pytest.importorskip("array_record.python.array_record_module", reason="needs array_record")
    writer = module.ArrayRecordWriter(str(tmp_path / "a.arrayrecord"), options)
    for document in DOCUMENTS:
        writer.write(document.astype("<u2").tobytes())
    writer.close()
    config = SourceConfig(str(tmp_path / "a.arrayrecord"), options={"dtype": "uint16"})
    assert_holds_the_documents(config)


def test_array_record_of_examples(tmp_path):
    module = pytest.importorskip("array_record.python.array_record_module", reason="needs array_record")
    writer = module.ArrayRecordWriter(str(tmp_path / "a.array_record"), "group_size:1")
    for document in DOCUMENTS:
        writer.write(example(document))
    writer.close()
    assert_holds_the_documents(SourceConfig(str(tmp_path / "a.array_record")))


def example(tokens: np.ndarray) -> bytes:
    """A tf.train.Example with features `input_ids` and `name`, by protobuf's own library."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="t", syntax="proto3")

    def add(name: str, *fields: tuple[str, int, int, int, str]):
        message = file.message_type.add(name=name)
        for field, number, kind, label, type_name in fields:
            message.field.add(name=field, number=number, type=kind, label=label, type_name=type_name or None)
        return message

    text, integer, message, optional, repeated = 9, 3, 11, 1, 3
    add("Int64List", ("value", 1, integer, repeated, ""))
    add("BytesList", ("value", 1, 12, repeated, ""))
    bytes_field = ("bytes_list", 1, message, optional, ".t.BytesList")
    add("Feature", bytes_field, ("int64_list", 3, message, optional, ".t.Int64List"))
    add("Entry", ("key", 1, text, optional, ""), ("value", 2, message, optional, ".t.Feature"))
    add("Features", ("feature", 1, message, repeated, ".t.Entry"))
    add("Example", ("features", 1, message, optional, ".t.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    record: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Example"))()
    entry = record.features.feature.add(key="name")
    entry.value.bytes_list.value.append(b"a document")
    entry = record.features.feature.add(key="input_ids")
    entry.value.int64_list.value.extend(tokens.tolist())
    return record.SerializeToString()


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64])
def test_megatron_indexed_dataset(dtype, tmp_path):
    name = "megatron.core.datasets.indexed_dataset"
    module = pytest.importorskip(name, reason="needs megatron-core and torch", exc_type=ImportError)
    builder = module.IndexedDatasetBuilder(str(tmp_path / "a.bin"), dtype=dtype)
    for document in DOCUMENTS:
        builder.add_document(document, [len(document)])
    builder.finalize(str(tmp_path / "a.idx"))
    assert_holds_the_documents(SourceConfig(str(tmp_path / "a")))


def test_levanter_jagged_array_store(tmp_path):
    store = pytest.importorskip("levanter.store.jagged_array", reason="needs levanter", exc_type=ImportError)
    path = str(tmp_path / "train" / "input_ids")
    array = store.JaggedArrayStore.open(path, item_rank=1, dtype=np.int32)
    array.extend([document.astype(np.int32) for document in DOCUMENTS])
    assert_holds_the_documents(SourceConfig(str(tmp_path / "train")))
