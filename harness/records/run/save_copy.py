"""Rule by which training and plans decide whether a state is saved from a copy on the device."""

from __future__ import annotations


def save_copy_bytes(copy: float, rest: float, limit: float) -> float:
    """Return the bytes of the copy of a state that a device holds while the copy is saved: `copy`, if it fits
    into the limit beside the `rest`, the state and all that a step needs. Otherwise 0: the state itself is
    saved, and training waits."""
    return copy if copy + rest <= limit else 0
