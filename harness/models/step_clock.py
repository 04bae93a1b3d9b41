"""The place of a step within its run, for what changes over a run or is random in it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
from jax import Array


class StepClock(NamedTuple):
    """Scalars of one step. Programs take them as arguments, so one program serves all steps and seeds."""

    step: Any
    """Number of updates before this one, int32."""
    progress: Any
    """Share of the run's updates that are done, float32 from 0 to below 1."""
    seed: Any
    """Seed of the run, uint32."""
    microbatch: Any = 0
    """Index of the micro-batch in its batch, int32."""

    def key(self, *folded: int) -> Array:
        """Return the random key of this step and micro-batch, with more integers folded in."""
        key = jax.random.key(self.seed)
        for value in (self.step, self.microbatch, *folded):
            key = jax.random.fold_in(key, value)
        return key
