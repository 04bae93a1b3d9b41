"""Requests of mechanisms: the names of its arguments say what one is told, and it gets exactly that.

    def __call__(self, x_BTD, rotary, tokens_BT): ...

The first arguments are those of its socket. Each later one is one of SIDE_INPUTS, or the name of an array
that another mechanism gives (`gives` at its registration).
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from harness.core.errors import UserError, did_you_mean
from harness.models.layers import Rotary
from harness.models.step_clock import StepClock
from harness.parallel.sharding.sequence_parallel import all_gather_sequence

SIDE_INPUTS = {
    "rotary": "rotation of queries and keys by position; carries `document_BT`",
    "document_BT": "index of each token's document, int32 [B, T]; None if documents are not masked",
    "tokens_BT": "ids of the input tokens, int32 [B, T]",
    "x0_BTD": "output of the embedding, [B, T, D]",
    "progress": "share of the run's steps that are done, float32; 1 when the model is judged",
    "step": "number of steps that are done, int32; None when the model is judged",
    "key": "random key of this step, micro-batch and layer; None when the model is judged",
    "visit": "number of times that this layer was applied before in this pass, an int",
}
"""Names that can be asked for, and their meaning."""

CLOCK_NAMES = frozenset({"progress", "step", "key"})
"""Names that change from step to step."""


class SideOutputs(NamedTuple):
    """Results of a mechanism beside its output: `return y_BTD, SideOutputs(...)`."""

    auxiliary: Array | None = None
    """Term of the training loss, a float32 scalar."""
    gives: Mapping[str, Array] = {}
    """Arrays [B, T, ...] for the mechanisms after it, by the names that its registration declares."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SideInputs:
    """Everything that the mechanisms of a pass may be told. None is what none of them asks for."""

    rotary: Rotary
    tokens_BT: Array | None = None
    x0_BTD: Array | None = None
    clock: StepClock | None = None
    given_arrays: dict[str, Array] = field(default_factory=dict)
    """Arrays that mechanisms gave so far."""
    visit: int = field(default=0, metadata={"static": True})

    def answers(self, requests: Mapping[str, bool], *place: int) -> dict[str, Any]:
        """Return what was asked for by name (`asked_names`). `place`: integers that tell this mechanism's key
        from others. An array that nobody gave yet is None, or the default of the argument."""
        return {
            name: self._answer(name, place)
            for name, required in requests.items()
            if required or name in SIDE_INPUTS or name in self.given_arrays
        }

    def _answer(self, name: str, place: tuple[int, ...]) -> Any:
        match name:
            case "document_BT":
                return self.rotary.document_BT
            case "progress":
                return jnp.float32(1) if self.clock is None else self.clock.progress
            case "step":
                return self.clock and self.clock.step
            case "key":
                return self.clock and self.clock.key(*place)
            case "rotary" | "tokens_BT" | "x0_BTD" | "visit":
                return getattr(self, name)
        return self.given_arrays.get(name)

    def of_shard(self) -> SideInputs:
        """Return what a mechanism is told that works on this device's shard of the sequences."""
        return replace(self, rotary=self.rotary.local_shard())

    def of_full_sequence(self) -> SideInputs:
        """Return what a mechanism is told that works on full sequences."""
        gathered = jax.tree.map(all_gather_sequence, (self.tokens_BT, self.x0_BTD, self.given_arrays))
        tokens_BT, x0_BTD, given_arrays = gathered
        return replace(self, tokens_BT=tokens_BT, x0_BTD=x0_BTD, given_arrays=given_arrays)


@functools.cache
def asked_names(call: Callable[..., Any], own_count: int) -> dict[str, bool]:
    """Return the names that a function asks for after its `own_count` first arguments; false: it has a
    default."""
    parameters = [*inspect.signature(call).parameters.values()][own_count:]
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name: p.default is inspect.Parameter.empty for p in parameters if p.kind in kinds}


def check_names(key: str, requests: Mapping[str, bool], *names: Iterable[str]) -> None:
    """Raise UserError if a mechanism asks for what it cannot be told; `key` names it in the config. `names`:
    those of SIDE_INPUTS that its socket has, and those that other mechanisms give."""
    possible = {*itertools.chain(*names)}
    for name, required in requests.items():
        if required and name not in possible:
            raise UserError(
                f"{key} asks for '{name}', which nothing tells it: {did_you_mean(name, possible)} Rename the"
                " argument, or register a mechanism that gives it (gives=...)."
            )
