"""Cache of checkpoint templates: Orbax saves a kind of state once per machine, not once per attempt."""

from __future__ import annotations

import contextlib
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from harness.core.atomic_files import CorruptFile
from harness.core.cache.cache_entries import CacheEntry
from harness.core.errors import UserError
from harness.records.run.provenance import package_versions
from harness.training.output.checkpoint_template import CheckpointTemplate, Structure
from harness.training.output.stored_arrays import STATE_NAME, array_name, read_headers, read_host_arrays

KIND = "checkpoints"
_FORMAT = 1
"""Number of the format of an entry."""


def load_template(state: Any) -> CheckpointTemplate | None:
    """Return the template of the checkpoints of a state; None if none was stored. It comes from another
    process, so the first checkpoint that is written after it needs `check_first`."""
    structure = Structure.of(state)
    entry = _entry(structure)
    content = None
    if entry:
        with contextlib.suppress(UserError):  # a cache that cannot be used holds nothing
            content = entry.read_json()
    if content is None:
        return None
    endings = [bytes.fromhex(ending) for ending in content["endings"]]
    headers, files = (
        {name: text.encode("latin-1") for name, text in content[part].items()}
        for part in ("headers", "files")
    )
    return CheckpointTemplate(structure, content["keys"], endings, headers, files, content["folder"])


def store_template(template: CheckpointTemplate) -> None:
    """Store a template for later processes, if they can recognise the structure of its state."""
    entry = _entry(template.structure)
    if entry is None:
        return
    content = {
        "keys": template.keys,
        "endings": [ending.hex() for ending in template.endings],
        "headers": {name: text.decode("latin-1") for name, text in template.headers.items()},
        "files": {name: text.decode("latin-1") for name, text in template.files.items()},
        "folder": template.folder,
    }
    with contextlib.suppress(UserError):
        entry.write(json.dumps(content).encode())


def check_first(template: CheckpointTemplate, folder: Path, values: list[bytes]) -> None:
    """Raise CorruptFile unless these values are read from the checkpoint that was written in a folder. The
    stored template is then removed, so that Orbax saves the next time."""
    structure, state = template.structure, folder / STATE_NAME
    arrays = read_host_arrays(state, read_headers(state), structure.tree.unflatten(structure.arrays))
    if arrays is not None and [array.tobytes() for array in arrays] == values:
        return
    if entry := _entry(structure):
        entry.remove()
    raise CorruptFile(f"{folder}: the checkpoint that was just saved does not have the values of the state")


def _entry(structure: Structure) -> CacheEntry | None:
    """Return the cache entry of a structure; None if an array lies on several devices, whose order no text
    tells, or if the text of the tree has an address in memory."""
    shardings = {array.sharding for array in structure.arrays}
    tree = str(structure.tree)
    if jax.process_count() > 1 or any(len(s.device_set) > 1 for s in shardings) or " at 0x" in tree:
        return None
    places = {sharding: f"{sharding} {[d.id for d in sharding.device_set]}" for sharding in shardings}
    paths = jax.tree_util.tree_leaves_with_path(structure.tree.unflatten(structure.arrays))
    arrays = [
        [array_name(path), array.shape, str(array.dtype), places[array.sharding]] for path, array in paths
    ]
    versions = package_versions() | {"tensorstore": metadata.version("tensorstore")}
    return CacheEntry(KIND, "", [_FORMAT, versions, tree, arrays])
