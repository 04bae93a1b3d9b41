"""Calls of Orbax, imported where one is made: half a second that most starts of a run do without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint._src.serialization.types import DefaultSerializationStatusCallback, TransferPriority
from orbax.checkpoint.experimental import v1 as ocp

from harness.training.output.stored_arrays import STATE_NAME

Saving = ocp.AsyncResponse[None]
"""Save that goes on in the background."""


def load_state(path: Path, abstract: Any, resize: bool) -> Any:
    """Return the state of a checkpoint, laid out as `abstract`. With `resize`, arrays that were saved larger
    are cut and smaller ones filled with zeros, at their ends."""
    context = _orbax_context()
    context.array.loading.enable_padding_and_truncation = resize
    with context:
        return ocp.load_checkpointables(str(path), {STATE_NAME: abstract})[STATE_NAME]


def start_save(path: Path, state: Any, transfer_bytes: int | None) -> Saving:
    """Begin to save a state as a checkpoint. `transfer_bytes`: what it fetches from the devices at once, at
    most; None: all of it."""
    with _orbax_context(transfer_bytes):
        return ocp.save_checkpointables_async(str(path), {STATE_NAME: state})


class _FetchInTurn(DefaultSerializationStatusCallback):
    """Rule for Orbax that no array is fetched from the devices before the save of earlier ones is done."""

    def key_priority(self, _: Any) -> TransferPriority:
        """Return the priority of an array."""
        return TransferPriority.ASYNCHRONOUS_DEPRIORITIZED


def _orbax_context(transfer_bytes: int | None = None) -> ocp.Context:
    """Build the Orbax context: no compression, and every process named.

    Compressing weights saves a twelfth of the bytes, for four times the CPU time of a save and one and a half
    times that of a restore. With named processes Orbax waits through JAX's coordinator, not in collectives.
    """
    context = ocp.Context()
    context.array.saving.use_compression = False
    if transfer_bytes is not None:
        context.memory.transfer_concurrent_bytes = transfer_bytes
        context.memory.serialization_status_callback = _FetchInTurn()
    if jax.process_count() > 1:
        context.multiprocessing.primary_host = 0
        context.multiprocessing.active_processes = set(range(jax.process_count()))
    return context
