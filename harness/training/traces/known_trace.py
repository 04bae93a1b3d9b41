"""Trace that a process of this machine's user has made: the hash of the program's text, under which its
executable lies in the cache, and the forms of its results.

Nothing is remembered of a trace that could come out otherwise under the same key: one that calls back into
Python, that holds values of its own such as the weights of a teacher, or during which a file was opened, a
command started or a host asked. What it may depend on without being seen is in `trace_key`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import P
from jax.sharding import AbstractMesh, Mesh, NamedSharding

from harness.core.cache.cache_entries import CacheEntry, Note
from harness.models.execution.computed_constants import is_computed

KIND = "traces"
MAX_CONSTANT_BYTES = 4096
"""Largest array of unknown origin that a remembered program may hold: less than weights."""

_CONSTANT = re.compile(r'dense<"0x([0-9A-Fa-f]*)"')
_NOT_REPEATABLE = ("callback", "host_transfer", "stablehlo.send", "stablehlo.infeed", "dense_resource<")
"""Words in the text of a program that works with its own process, or that does not show all of its values."""


@dataclass(frozen=True)
class KnownTrace:
    """Result of a trace, without the program itself."""

    text_hash: str
    """Sha256 of the program's text."""
    forms: list[Any]
    """Shape, dtype and partition of each result, as plain data."""

    def results(self, mesh: AbstractMesh | Mesh) -> list[jax.ShapeDtypeStruct]:
        """Return the specs of the results over the program's mesh, in the order of its leaves."""
        return [
            jax.ShapeDtypeStruct(tuple(shape), jnp.dtype(dtype), sharding=_sharding(mesh, axes))
            for shape, dtype, axes in self.forms
        ]


def trace_entry(name: str, inputs: Any) -> CacheEntry:
    """Return the place of a trace in the cache; `inputs` are those of `trace_key.trace_inputs`."""
    return CacheEntry(KIND, name, inputs)


def read_trace(entry: CacheEntry, note: Note) -> KnownTrace | None:
    """Return what is known of a trace; None if nothing is. Of a damaged entry a `note` is given."""
    content = entry.read_json(note)
    return None if content is None else KnownTrace(content["text"], content["results"])


def remember_trace(entry: CacheEntry, results: Any, text_hash: str, structure: Any) -> None:
    """Write what a trace has found out, if plain data can say it. `results`: specs over an abstract mesh;
    `structure`: the `PyTreeDef` that is expected of the program."""
    leaves, found_structure = jax.tree.flatten(results)
    forms = [_plain_form(leaf) for leaf in leaves]
    if found_structure == structure and None not in forms:
        entry.write_json({"text": text_hash, "results": forms})


def is_repeatable(text: str) -> bool:
    """Return whether a program is in its text alone: it calls nothing in its process, and holds no arrays
    that may come from elsewhere."""
    if any(word in text for word in _NOT_REPEATABLE):
        return False
    return all(_is_known_constant(constant[1]) for constant in _CONSTANT.finditer(text))


def _is_known_constant(digits: str) -> bool:
    return len(digits) <= 2 * MAX_CONSTANT_BYTES or is_computed(bytes.fromhex(digits))


def _plain_form(result: Any) -> list[Any] | None:
    """Return shape, dtype and partition of a result; the latter is None if it is left to the compiler. None
    for a result that these do not describe."""
    sharding, dtype = result.sharding, result.dtype
    if not isinstance(dtype, np.dtype) or result.weak_type:
        return None
    if sharding is None:
        return [list(result.shape), dtype.name, None]
    axes = [list(entry) if isinstance(entry, tuple) else entry for entry in sharding.spec]
    is_plain = sharding == _sharding(sharding.mesh, axes)  # which is what a stub is given
    return [list(result.shape), dtype.name, axes] if is_plain else None


def _sharding(mesh: AbstractMesh | Mesh, axes: Sequence[Any] | None) -> NamedSharding | None:
    if axes is None:
        return None
    return NamedSharding(mesh, P(*(tuple(entry) if isinstance(entry, list) else entry for entry in axes)))
