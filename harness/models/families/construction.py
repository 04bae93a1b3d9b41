"""Construction of a user's module: traced, never run, so that every parameter starts by its path alone.

Ordinary initialisers take their random keys in the order of the calls, so a layer that one variant adds would
shift the draws of all that follow. Here each call gets a key of its own as an input of the traced
constructor. The part of the trace that one parameter needs is then run with keys made from the seed and that
parameter's path: what two variants share starts bitwise equal.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from harness.models.counting.jaxpr import needed_part
from harness.models.initialisation.draw import Draw

DrawKey = Callable[[], jax.Array]
Constructor = Callable[[nnx.Rngs], nnx.Module]


@dataclass(frozen=True)
class TracedDraw(Draw):
    """Initial values that a part of a traced constructor makes from random keys."""

    deviation: float = 1.0
    jaxpr: ClosedJaxpr | None = field(default=None, compare=False)
    """Part of the constructor that one parameter needs."""
    keys: int = 0
    """Number of keys that it reads."""

    @property
    def is_whole(self) -> bool:
        """True: nobody knows how to compute a part of it."""
        return True

    def fill(self, generator: np.random.Generator, out: np.ndarray, matrices: tuple[int, int, int]) -> None:
        """Write the values into an array. They are computed on the CPU, operation by operation, so that their
        bits depend on nothing else in the model."""
        assert self.jaxpr is not None
        words_N2 = generator.integers(0, 2**32, (self.keys, 2), np.uint32)
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            keys = [jax.random.wrap_key_data(words_2, impl="threefry2x32") for words_2 in words_N2]
            (value,) = jaxpr_as_fun(self.jaxpr)(*keys)
        out[...] = np.asarray(value)


@dataclass(frozen=True)
class Construction:
    """A traced module: its graph, its abstract parameters, and how they are drawn."""

    graph: nnx.GraphDef
    abstract: nnx.State
    draws: dict[str, TracedDraw]
    """Initial values of each parameter by path."""
    trace: ClosedJaxpr
    """The whole constructor."""
    other_state: dict[str, str]
    """Names of the types of what is no parameter, by path: state that a run would not keep."""

    @property
    def params(self) -> dict[str, nnx.Variable]:
        """Abstract parameters by path, in the order of the module's leaves."""
        return {_name(path): param for path, param in nnx.to_flat_state(self.abstract)}


def construct(constructor: Constructor) -> Construction:
    """Trace a constructor of a module. Errors of the constructor pass through."""
    calls = itertools.count()
    jax.eval_shape(lambda: _split(constructor, lambda: (next(calls), jax.random.key(0))[1])[1])
    num_keys, parts = next(calls), []

    def build(*keys: jax.Array) -> nnx.State:
        next_keys = iter(keys)
        parts[:] = _split(constructor, lambda: next(next_keys))
        return parts[1]

    trace, abstract = jax.make_jaxpr(build, return_shape=True)(*[jax.random.key(0)] * num_keys)
    graph, _, other_state = parts
    names = [_name(path) for path, _ in nnx.to_flat_state(abstract)]
    draws = {name: _draw(trace, index) for index, name in enumerate(names)}
    return Construction(graph, abstract, draws, trace, other_state)


def _split(constructor: Constructor, draw: DrawKey) -> tuple[nnx.GraphDef, nnx.State, dict[str, str]]:
    """Return the module's graph, its parameters, and the types of all other state by path."""
    with nnx.use_eager_sharding(False):  # the names of axes are read later, for any mesh
        module = constructor(_KeyPerCall(draw))
    other_state = {}
    for _, node in nnx.iter_graph(module):
        if isinstance(node, nnx.bridge.ToNNX):
            node.to_nnx__rngs = None  # which it would draw from at each call
    for path, node in nnx.iter_graph(module):
        if isinstance(node, nnx.Rngs | nnx.RngStream):
            other_state[_name(path)] = type(node).__name__
        elif isinstance(node, nnx.Variable):
            if not isinstance(node, nnx.Param):
                other_state[_name(path)] = type(node).__name__
        elif isinstance(node, nnx.Module):
            arrays = {name: value for name, value in vars(node).items() if isinstance(value, jax.Array)}
            other_state |= {_name((*path, name)): "jax.Array" for name in arrays}
    graph, params, _ = nnx.split(module, nnx.Param, ...)
    return graph, params, other_state


class _KeyStream(nnx.RngStream):
    """Stream of the keys that a function gives."""

    def __init__(self, draw: DrawKey):
        self.tag, self.draw = "default", draw

    def __call__(self) -> jax.Array:
        return self.draw()

    def split(self, k: int | tuple[int, ...]) -> nnx.RngStream:
        """Return a stream of several keys, made from the next one."""
        return nnx.RngStream(jax.random.split(self(), k), tag=self.tag)

    def fork(self, *, split: int | tuple[int, ...] | None = None) -> nnx.RngStream:
        """Return an ordinary stream from the next key."""
        return nnx.RngStream(self(), tag=self.tag) if split is None else self.split(split)


class _KeyPerCall(nnx.Rngs):
    """Random keys of a constructor: each call takes the next one, by whatever name it asks."""

    def __init__(self, draw: DrawKey):
        self.default = _KeyStream(draw)


def _draw(trace: ClosedJaxpr, index: int) -> TracedDraw:
    is_output = [place == index for place in range(len(trace.jaxpr.outvars))]
    jaxpr, reads = needed_part(trace.jaxpr, is_output)
    return TracedDraw(jaxpr=ClosedJaxpr(jaxpr, trace.consts), keys=sum(reads))


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))
