"""Template of a checkpoint: all that Orbax wrote for a state but its values, which a later save replaces.

Orbax takes 1.5 ms of Python for each array of a save, which for a small state is most of it: 200 ms for 139
arrays of .8 MB. All of its keys and values in one transaction of TensorStore take 5 ms, and the other files
of a checkpoint depend on names, shapes, dtypes and shardings alone.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorstore as ts

from harness.core.atomic_files import write_bytes
from harness.training.output.stored_arrays import (
    HEADER,
    STATE_NAME,
    array_name,
    decode,
    is_whole,
    open_store,
    value_key,
)

MAX_BYTES = 2**26
"""Size of a state above which Orbax saves it: its values lie in memory twice until they are on disk."""
TEMPORARY = ".orbax-checkpoint-tmp"
"""End of the name of a checkpoint that is not complete, as Orbax has it."""
_STORE = (f"{STATE_NAME}/d/", f"{STATE_NAME}/manifest.ocdbt", f"{STATE_NAME}/ocdbt.process_")
"""Paths of the store, which each save writes anew."""
_STORE_OPTIONS = {
    "config": {"max_inline_value_bytes": 1024, "max_decoded_node_bytes": 10**8, "manifest_kind": "single"},
    "assume_config": True,
}
"""Options with which Orbax writes a store: headers lie in its tree, which is one node, values in one file."""
_METADATA, _SUCCESS = "_CHECKPOINT_METADATA", "commit_success.txt"
_TIMES = "init_timestamp_nsecs", "commit_timestamp_nsecs"


@dataclass(frozen=True)
class Structure:
    """Tree of a state, and shape, dtype and sharding of each of its arrays."""

    tree: Any
    arrays: list[jax.ShapeDtypeStruct]

    @classmethod
    def of(cls, state: Any) -> Structure:
        """Return the structure of a state of arrays."""
        arrays, tree = jax.tree.flatten(state)
        return cls(tree, [jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding) for a in arrays])


@dataclass(frozen=True)
class CheckpointTemplate:
    """Template of the checkpoints of a state that lies in one piece on the devices of one process."""

    structure: Structure
    keys: list[str]
    """Key of the value of each array, in the order of the tree."""
    endings: list[bytes]
    """Bytes of each value after those of the array: the index of its only piece, with a checksum."""
    headers: dict[str, bytes]
    """Headers of all arrays by key."""
    files: dict[str, bytes]
    """Content of the files beside the store by path."""
    folder: str
    """Checkpoint from which the template was read."""

    def copy_values(self, state: Any) -> list[bytes] | None:
        """Copy the bytes of each array to the host, so that a step may overwrite the state. None if Orbax has
        to save it: another structure than that of the template."""
        return _copy_values(state) if Structure.of(state) == self.structure else None

    def write(self, folder: Path, values: list[bytes]) -> None:
        """Write the checkpoint of the values of `copy_values`. It has its name once it is complete."""
        temporary = folder.with_name(folder.name + TEMPORARY)
        for name, content in self.files.items():
            write_bytes(temporary / name, self._adapt(name, content, folder))
        transaction = ts.Transaction(atomic=True)
        store = open_store(temporary / STATE_NAME, **_STORE_OPTIONS).with_transaction(transaction)
        for key, header in self.headers.items():
            store[key] = header
        for key, value, ending in zip(self.keys, values, self.endings, strict=True):
            store[key] = value + ending
        transaction.commit_async().result()  # syncs what it writes
        temporary.rename(folder)

    def _adapt(self, name: str, content: bytes, folder: Path) -> bytes:
        """Return the content of a file with the times and the folder of this save."""
        if name == _METADATA:
            record = json.loads(content)
            return json.dumps(record | {key: time.time_ns() for key in _TIMES if key in record}).encode()
        if name == _SUCCESS:
            return content.replace(os.fsencode(self.folder), os.fsencode(folder))
        return content


def read_template(folder: Path, state: Any) -> CheckpointTemplate | None:
    """Return the template of the checkpoint of `state` in a folder, where Orbax has just written it. None if
    the store has anything else than a header for each array and its bytes in one piece."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    is_small = sum(array.nbytes for _, array in leaves) <= MAX_BYTES
    if jax.process_count() > 1 or not is_small or not all(a.is_fully_replicated for _, a in leaves):
        return None
    arrays = {array_name(path): array for path, array in leaves}
    keys = [value_key(name, array) for name, array in arrays.items()]
    store = open_store(folder / STATE_NAME)
    reads = {key.decode(): store.read(key) for key in store.list().result()}
    content = {key: read.result().value for key, read in reads.items()}
    if len(arrays) < len(leaves) or content.keys() != {*keys, *(name + HEADER for name in arrays)}:
        return None
    endings = []
    for key, (name, array), value in zip(keys, arrays.items(), _copy_values(state), strict=True):
        is_plain = is_whole(json.loads(content[name + HEADER]), array)
        if not is_plain or decode(content[key], array) is None or not content[key].startswith(value):
            return None
        endings.append(content[key][len(value) :])
    headers = {key: value for key, value in content.items() if key.endswith(HEADER)}
    return CheckpointTemplate(Structure.of(state), keys, endings, headers, _other_files(folder), str(folder))


def _copy_values(state: Any) -> list[bytes]:
    # A view of the array itself would stay with it, and keep the next step from taking over its memory.
    pieces = [array.addressable_data(0) for array in jax.tree.leaves(state)]
    for piece in pieces:
        piece.copy_to_host_async()
    return [np.asarray(piece).tobytes() for piece in pieces]


def _other_files(folder: Path) -> dict[str, bytes]:
    """Return the content of the files beside the store by path."""
    paths = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in paths.items() if not name.startswith(_STORE)}
