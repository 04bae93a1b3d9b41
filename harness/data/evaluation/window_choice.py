"""Choice of the windows of a validation set that every run is evaluated on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt64

from harness.core.hashing import hash_json
from harness.data.evaluation.contamination import DIRTY, Candidates, TrainingText, shares_in_text
from harness.data.order.permutation import make_key, permute
from harness.data.text.corpus import Windows

CANDIDATES = 4
"""Windows that are compared with the training text for each one that is evaluated; if too few of them are
clean, as many times as many are compared."""
MAX_SPARE_TOKENS = 2**20
"""Tokens of windows that are compared at first beside as many as are evaluated: they cost memory."""


@dataclass(frozen=True)
class SetWindows:
    """Windows of a validation set, cut from all its tokens."""

    name: str
    key: str
    """Hash of all that its tokens depend on."""
    windows: Windows


@dataclass(frozen=True)
class WindowChoice:
    """Windows that are evaluated, in their order, and the shares of those that were compared with the
    training text; None: nothing was compared."""

    window_N: UInt64[np.ndarray, " N"]
    left_out_share: float | None = None
    """Share that stands in the training text and is left out."""
    touched_share: float | None = None
    """Share that has any n-gram in common with the training text."""


def choose_windows(
    heldout_set: SetWindows, count: int, texts: Sequence[TrainingText], length: int, limit: float = math.inf
) -> WindowChoice | None:
    """Return up to `count` windows, in an order that depends on the set alone, without those that stand in
    the texts by their n-grams of `length` tokens; 0: with them. None if more than `limit` tokens would have
    to be searched."""
    num_windows = len(heldout_set.windows)
    if not length:
        return WindowChoice(_in_order(heldout_set, min(count, num_windows)))
    spare = min((CANDIDATES - 1) * count, MAX_SPARE_TOKENS // heldout_set.windows.length)
    num_candidates = min(num_windows, count + spare)
    while True:
        window_N = _in_order(heldout_set, num_candidates)
        key = hash_json([heldout_set.name, heldout_set.key, heldout_set.windows.length, num_candidates])
        share_N = shares_in_text(Candidates(key, heldout_set.windows[window_N]), texts, length, limit)
        if share_N is None:
            return None
        is_dirty_N = share_N >= DIRTY
        if num_candidates == num_windows or (~is_dirty_N).sum() >= count:
            clean_N = window_N[~is_dirty_N][:count]
            return WindowChoice(clean_N, float(is_dirty_N.mean()), float((share_N > 0).mean()))
        num_candidates = min(num_windows, CANDIDATES * num_candidates)


def _in_order(heldout_set: SetWindows, count: int) -> np.ndarray:
    """Return the first windows, in the order in which held-out windows of a source are taken too."""
    return permute(
        np.arange(count, dtype=np.uint64), len(heldout_set.windows), make_key("heldout", heldout_set.name)
    )
