"""Agreement between the processes of a multi-process run. With one process, every function here is trivial.

All processes run the same code on the same steps. Only process 0, the primary, reads and writes the run's
directory; it decides and tells the others. They communicate through the key-value store of JAX's coordinator
and never through a collective, whose order would have to be agreed on first.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from harness.parallel.processes.private_jax import coordination_client

TIMEOUT_MS = 24 * 3600 * 1000
"""Milliseconds to wait for a slow peer. A lost peer is detected by `parallel.processes.rendezvous`."""
ANNOUNCE_STEPS = 2
"""Steps from the announcement of a stop or a save to the stop or the save itself. No process dispatches step
k + 2 before step k + 1 has ended, and process 0 dispatched that one after its announcement."""

_numbers = itertools.count()
_index = 0


def set_process_index(index: int) -> None:
    """Set this process's index in its run. JAX's own index is unusable: on a TPU it comes from the slice,
    whatever was passed to `jax.distributed.initialize`."""
    global _index
    _index = index


def is_primary() -> bool:
    """Return whether this process writes the run's files."""
    return _index == 0


def broadcast_from_primary(decide: Callable[[], Any]) -> Any:
    """Return process 0's decision, a JSON value, in every process. Call it from the run's thread, equally
    often and in the same order in every process."""
    if jax.process_count() == 1:
        return decide()
    key = f"agreed/{next(_numbers)}"
    if is_primary():
        decision = decide()
        coordination_client().key_value_set(key, json.dumps(decision))
        return decision
    return json.loads(coordination_client().blocking_key_value_get(key, TIMEOUT_MS))


class PreemptionSync:
    """Agreement on the step after which all processes stop training, if any of them was asked to stop."""

    def __init__(self, stop: threading.Event):
        self._stop, self._at = stop, None
        self._name = f"leave/{next(_numbers)}"
        self._asked = False

    def should_stop_after(self, step: int) -> bool:
        """Return whether to stop after this step: at once with one process. Call it after each step."""
        if jax.process_count() == 1:
            return self._stop.is_set()
        if self._at is None:
            self._at = self._announce(step) if is_primary() else self._request_and_read()
        return self._at is not None and step >= self._at

    def _announce(self, step: int) -> int | None:
        if not self._stop.is_set() and _try_get(f"{self._name}/asked") is None:
            return None
        coordination_client().key_value_set(self._name, str(step + ANNOUNCE_STEPS))
        return step + ANNOUNCE_STEPS

    def _request_and_read(self) -> int | None:
        if self._stop.is_set() and not self._asked:
            self._asked = True
            coordination_client().key_value_set(f"{self._name}/asked", "", allow_overwrite=True)
        announced_step = _try_get(self._name)
        return None if announced_step is None else int(announced_step)


class SaveClock:
    """Agreement on the steps after which all processes save, by the clock of process 0."""

    def __init__(self, minutes: float | None):
        """`minutes`: from one save to the next; None: the clock asks for none."""
        self._seconds = None if minutes is None else 60 * minutes
        self._last, self._at = time.monotonic(), None
        self._name, self._count = f"save/{next(_numbers)}", 0

    def should_save_after(self, step: int) -> bool:
        """Return whether to save after this step: at once with one process. Call it after each step."""
        if self._seconds is None:
            return False
        if self._at is None:
            self._at = self._decide(step, self._seconds)
        if self._at is None or step < self._at:
            return False
        self._last, self._at, self._count = time.monotonic(), None, self._count + 1
        return True

    def _decide(self, step: int, seconds: float) -> int | None:
        """Return the step of the next save, once process 0 knows it."""
        key = f"{self._name}/{self._count}"
        if not is_primary():
            announced_step = _try_get(key)
            return None if announced_step is None else int(announced_step)
        if time.monotonic() - self._last < seconds:
            return None
        if jax.process_count() == 1:
            return step
        coordination_client().key_value_set(key, str(step + ANNOUNCE_STEPS))
        return step + ANNOUNCE_STEPS


def put_sharded(value: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    """Put a host array on the devices of a sharding; each process fills its own. `device_put` across
    processes would first compare the values in a collective."""
    if sharding.is_fully_addressable:
        return jax.device_put(value, sharding)
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def to_host(array: jax.Array) -> np.ndarray:
    """Return the full array on the host of every process."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def _try_get(key: str) -> str | None:
    try:
        return coordination_client().key_value_try_get(key)
    except jax.errors.JaxRuntimeError as error:
        if "NOT_FOUND" not in str(error):
            raise
        return None
