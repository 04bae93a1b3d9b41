"""Arrays of a checkpoint, read from its key-value store without Orbax.

Orbax opens every array of a checkpoint for its dtype, and again for its values, which takes longer than to
read the bytes of a small state. A header of some hundred bytes has the dtype, and an array that was saved in
one piece is one value of the store.
"""

from __future__ import annotations

import json
import math
import struct
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorstore as ts

STATE_NAME = "state"
"""Folder of the state within a checkpoint."""
MAX_BYTES = 2**28
"""Size of a state above which Orbax restores it: the values of all arrays lie in memory beside the state."""
PART_BYTES = 2**23
"""Bytes of the arrays that are put on the devices at once, while the store reads on."""
Spec = jax.ShapeDtypeStruct | jax.Array
Headers = dict[str, dict[str, Any]]
"""Headers of arrays (the metadata of Zarr 3) by name."""
HEADER = "/zarr.json"
"""End of the key under which the header of an array is stored."""
_INDEX_CHECKSUM_BYTES = 4


def array_name(path: Any) -> str:
    """Return the name under which Orbax saves the array at a path of JAX's tree utilities."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def read_headers(folder: Path) -> Headers:
    """Return the header of each array of a state by name; `folder`: that of the state within a checkpoint.
    Empty if the checkpoint has another format."""
    store = open_store(folder)
    keys = [key.decode() for key in store.list().result()]
    reads = [(key.removesuffix(HEADER), store.read(key)) for key in keys if key.endswith(HEADER)]
    return {name: json.loads(read.result().value) for name, read in reads}


def read_arrays(folder: Path, headers: Headers, abstract: Any) -> Any | None:
    """Return the arrays of `abstract` (ShapeDtypeStructs with shardings) from the folder of a state. None if
    Orbax has to restore or refuse them, as in `read_host_arrays`."""
    specs, tree = jax.tree.flatten(abstract)
    arrays: list[jax.Array] = []
    for part in _read_parts(folder, headers, abstract):
        if part is None:
            return None
        shardings = [spec.sharding for spec in specs[len(arrays) : len(arrays) + len(part)]]
        # Copied, since the runtime would otherwise let the state lie in the values of the store.
        arrays += jax.device_put(part, shardings, may_alias=False)
    return tree.unflatten(arrays)


def read_host_arrays(folder: Path, headers: Headers, abstract: Any) -> list[np.ndarray] | None:
    """Return the arrays of `abstract` on the host, in the order of its tree. None for other arrays than were
    saved, several pieces of one, large states, runs of several processes."""
    arrays: list[np.ndarray] = []
    for part in _read_parts(folder, headers, abstract):
        if part is None:
            return None
        arrays += part
    return arrays


def _read_parts(folder: Path, headers: Headers, abstract: Any) -> Iterator[list[np.ndarray] | None]:
    """Yield the arrays in order, some PART_BYTES at a time, while the store reads those behind them. None
    ends it where `read_host_arrays` returns None."""
    leaves = jax.tree_util.tree_leaves_with_path(abstract)
    specs = {array_name(path): leaf for path, leaf in leaves}
    if len(specs) < len(leaves) or not _are_readable(headers, specs):
        yield None
        return
    store = open_store(folder)
    reads = deque((store.read(value_key(name, spec)), spec) for name, spec in specs.items())
    part: list[np.ndarray] = []
    num_bytes = 0
    while reads:
        read, spec = reads.popleft()
        array = decode(read.result().value, spec)
        if array is None:
            yield None
            return
        part.append(array)
        num_bytes += array.nbytes
        if not reads or num_bytes >= PART_BYTES:
            yield part
            part, num_bytes = [], 0


def _are_readable(headers: Headers, specs: Mapping[str, Any]) -> bool:
    return (
        jax.process_count() == 1
        and specs.keys() == headers.keys()
        and all(isinstance(spec, jax.ShapeDtypeStruct) for spec in specs.values())
        and sum(map(_num_bytes, specs.values())) <= MAX_BYTES
        and all(is_whole(headers[name], spec) for name, spec in specs.items())
    )


def open_store(folder: Path, **options: Any) -> ts.KvStore:
    """Open the key-value store of a state, with further options of TensorStore's OCDBT driver."""
    spec = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder}/"}, **options}
    return ts.KvStore.open(spec).result()


def value_key(name: str, spec: Spec) -> str:
    """Return the key of the value of an array that is stored in one piece."""
    return f"{name}/{'/'.join('c' + '0' * len(spec.shape))}"


def is_whole(header: dict[str, Any], spec: Spec) -> bool:
    """Return whether an array has the shape and dtype of `spec`, and is stored in one piece, uncompressed."""
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    plain = little if spec.dtype.itemsize > 1 else {"name": "bytes"}
    shape = list(spec.shape)
    pieces = {"chunk_shape": shape, "codecs": [plain], "index_codecs": [little, {"name": "crc32c"}]}
    return (
        header["shape"] == shape
        and header["data_type"] == str(spec.dtype)
        and header["chunk_grid"] == {"name": "regular", "configuration": {"chunk_shape": shape}}
        and header["chunk_key_encoding"] == {"name": "default"}
        and header["codecs"] == [{"name": "sharding_indexed", "configuration": pieces}]
    )


def decode(value: bytes, spec: Spec) -> np.ndarray | None:
    """Return the array in a value of the store: its bytes, then an index of one piece with its checksum. None
    if the value is another."""
    index = struct.pack("<QQ", 0, size := _num_bytes(spec))
    if len(value) != size + len(index) + _INDEX_CHECKSUM_BYTES or value[size : size + len(index)] != index:
        return None
    return np.frombuffer(value, spec.dtype, math.prod(spec.shape)).reshape(spec.shape)


def _num_bytes(spec: Spec) -> int:
    return math.prod(spec.shape) * spec.dtype.itemsize
