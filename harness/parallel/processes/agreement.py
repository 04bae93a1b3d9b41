"""What the processes of one run agree on, where there are several; alone, each of these is nothing.

All run the same code on the same steps. What is read from or written to the run's directory is process 0's
business: it decides, and tells the others. They talk through the key-value store of JAX's coordinator and
never through a collective, whose order would then have to be agreed on first.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

TIMEOUT_MS = 24 * 3600 * 1000
"""A peer that is gone is noticed by other means (parallel.processes.rendezvous); one that is slow is
waited for."""
ANNOUNCE_STEPS = 2
"""Steps between the one after which leaving is announced and the one after which all leave. No process
dispatches step k + 2 before step k + 1 ended, which process 0 dispatched after it had announced."""

_numbers = itertools.count()
_index = 0


def set_process_index(index: int) -> None:
    """Which of the processes of its run this one is. JAX's own number will not do: on a TPU it is the one
    that the slice gives, whatever `jax.distributed.initialize` was told."""
    global _index
    _index = index


def is_primary() -> bool:
    """Whether this process writes what the run leaves behind."""
    return _index == 0


def broadcast_from_primary(decide: Callable[[], Any]) -> Any:
    """What process 0 decides, something JSON can carry. To be called by the lane's thread, in every process
    as often and in the same order."""
    if jax.process_count() == 1:
        return decide()
    key = f"agreed/{next(_numbers)}"
    if is_primary():
        decision = decide()
        _store().key_value_set(key, json.dumps(decision))
        return decision
    return json.loads(_store().blocking_key_value_get(key, TIMEOUT_MS))


class PreemptionSync:
    """The step after which all processes leave a course, if any of them was asked to."""

    def __init__(self, stop: threading.Event):
        self._stop, self._at = stop, None
        self._name = f"leave/{next(_numbers)}"
        self._asked = False

    def should_stop_after(self, step: int) -> bool:
        """Asked after each step. Alone: at once."""
        if jax.process_count() == 1:
            return self._stop.is_set()
        if self._at is None:
            self._at = self._announce(step) if is_primary() else self._request_and_read()
        return self._at is not None and step >= self._at

    def _announce(self, step: int) -> int | None:
        if not self._stop.is_set() and _try_get(f"{self._name}/asked") is None:
            return None
        _store().key_value_set(self._name, str(step + ANNOUNCE_STEPS))
        return step + ANNOUNCE_STEPS

    def _request_and_read(self) -> int | None:
        if self._stop.is_set() and not self._asked:
            self._asked = True
            _store().key_value_set(f"{self._name}/asked", "", allow_overwrite=True)
        told = _try_get(self._name)
        return None if told is None else int(told)


def put_sharded(value: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    """On the devices of the sharding, of which each process fills its own; a plain `device_put` across
    processes would first compare the values in a collective."""
    if sharding.is_fully_addressable:
        return jax.device_put(value, sharding)
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def to_host(array: jax.Array) -> np.ndarray:
    """The whole array on the host of every process."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def _try_get(key: str) -> str | None:
    try:
        return _store().key_value_try_get(key)
    except jax.errors.JaxRuntimeError as error:
        if "NOT_FOUND" not in str(error):
            raise
        return None


def _store() -> Any:
    """JAX shows its store to nobody in public."""
    from jax._src import distributed

    return distributed.global_state.client
