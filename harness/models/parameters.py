"""Parameters by path: declared by a module, initialised on the host, one per layer or stacked for a scan.

A parameter is drawn from its seed and path: whole, or only some blocks of it. The generator is counter-based,
but the values that it makes are not: the ziggurat rejects one draw in a hundred (Marsaglia and Tsang, 2000),
so nobody knows where value n begins without drawing the values before it. So values are drawn in order, in
pieces, and those that nobody holds are dropped: that takes the time of drawing them, 15 ns a value, and the
memory of one piece.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from harness.models.initialisation.draw import Draw

T = TypeVar("T")

PIECE = 2**18
"""Maximum values of a piece: 1 MiB, which stays in a core's cache."""

Block = tuple[range, ...]
"""Indices of a block along each axis, without steps."""


@dataclass(frozen=True)
class ParamSpec:
    """Shape of a parameter, one logical axis name per dimension (`parallel.sharding.axis_rules`), its initial
    values, and what optimizers need to know."""

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    draw: Draw
    fan_in: int = 0
    """Number of inputs of a weight's product; 0 for what is no weight, such as a gain."""
    depth: int = 0
    """Number of layers of the model, for a weight that writes to the residual stream; 0 for all others."""
    decays: bool = False
    """True if weight decay shrinks it."""

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def deviation(self) -> float:
        """Standard deviation of the initial values."""
        return self.draw.deviation

    @property
    def is_weight(self) -> bool:
        """True for a factor of products, whatever its initial values; false for gains and other levels."""
        return self.fan_in > 0

    @property
    def is_matrix(self) -> bool:
        """True for a weight of two or more axes in each layer; false for gains and other vectors."""
        return len([axis for axis in self.axes if axis != "layers"]) > 1

    @property
    def matrices(self) -> tuple[int, int, int]:
        """Number of matrices of one layer, and the rows and columns of each in a product x_NI @ weight_IO."""
        matrix = expert_matrix(self)
        rows = math.prod(matrix.shape[: num_contracted_axes(matrix)])
        return self.size // matrix.size, rows, matrix.size // rows


def expert_matrix(spec: ParamSpec) -> ParamSpec:
    """Return the spec of one expert's matrix if the parameter holds all experts', else the spec itself."""
    if spec.axes[:1] != ("experts",):
        return spec
    return replace(spec, shape=spec.shape[1:], axes=spec.axes[1:])


def num_contracted_axes(spec: ParamSpec) -> int:
    """Return the number of leading axes that a product contracts."""
    # A matrix that writes to the residual stream contracts all axes before the last one.
    return len(spec.shape) - 1 if len(spec.shape) > 1 and spec.axes[-1] == "width" else 1


def weight(shape: tuple[int, ...], axes: tuple[str | None, ...], *, fan_in: int, depth: int = 0) -> nnx.Param:
    """Declare a weight of variance 1 / fan_in. A weight that writes to the residual stream passes the model's
    depth and is scaled by 1 / sqrt(2 depth) (GPT-2, section 2.3)."""
    draw = Draw("normal", 1 / math.sqrt(fan_in * (2 * depth or 1)))
    return _declare(ParamSpec(shape, axes, draw, fan_in, depth, decays=True))


def gain(size: int, axis: str | None) -> nnx.Param:
    """Declare the gain of a norm, initialised to ones."""
    return constant(size, axis, 1.0)


def constant(size: int, axis: str | None, value: float, *, decays: bool = False) -> nnx.Param:
    """Declare one number per head (or similar), initialised to `value` without noise. `decays`: weight decay
    shrinks it."""
    return _declare(ParamSpec((size,), (axis,), Draw(mean=value), decays=decays))


def zeros(shape: tuple[int, ...], axes: tuple[str | None, ...]) -> nnx.Param:
    """Declare a matrix that is initialised to zero."""
    return _declare(ParamSpec(shape, axes, Draw()))


def _declare(spec: ParamSpec) -> nnx.Param:
    # Abstract: `fill_blocks` makes the values on the host, so building a module of 10T parameters is free.
    abstract = jax.ShapeDtypeStruct(spec.shape, jnp.float32)
    return nnx.Param(abstract, axes=spec.axes, spec=spec)


def param_specs(module: nnx.Module) -> dict[str, ParamSpec]:
    """Return the specs of the parameters that a module declares, by path within it."""
    state = nnx.to_flat_state(nnx.state(module, nnx.Param))
    return {".".join(map(str, path)): param.get_metadata()["spec"] for path, param in state}


def count_parameters(module: nnx.Module) -> int:
    """Return the number of values of a module's parameters."""
    return sum(param.size for param in param_specs(module).values())


def init_param(seed: int, path: str, spec: ParamSpec) -> np.ndarray:
    """Return the float32 initial value of one parameter. It depends only on seed, path and spec."""
    return init_blocks(seed, path, spec, [tuple(map(range, spec.shape))])[0]


def init_blocks(seed: int, path: str, spec: ParamSpec, blocks: Sequence[Block]) -> list[np.ndarray]:
    """Return these blocks of `init_param`'s result, bit for bit, and never hold more of it."""
    arrays = [np.empty([*map(len, block)], np.float32) for block in blocks]
    fill_blocks(seed, path, spec, blocks, arrays)
    return arrays


def fill_blocks(
    seed: int, path: str, spec: ParamSpec, blocks: Sequence[Block], arrays: Sequence[np.ndarray]
) -> None:
    """Write each block of `init_param`'s result into the array at its position. May run in threads."""
    draw = spec.draw
    if not draw.deviation:
        for array in arrays:
            array[...] = draw.mean
        return
    key = int.from_bytes(hashlib.sha256(f"{seed}/{path}".encode()).digest()[:16], "little")
    generator = np.random.Generator(np.random.Philox(key=key))
    mean, deviation = np.float32(draw.mean), np.float32(draw.deviation)
    scratch = np.empty(spec.size if draw.is_whole else min(spec.size, PIECE), np.float32)
    missing_values = sum(array.size for array in arrays)
    for piece in [tuple(map(range, spec.shape))] if draw.is_whole else _pieces(spec.shape):
        if not missing_values:
            return
        sizes = [*map(len, piece)]
        values = scratch[: math.prod(sizes)].reshape(sizes)
        draw.fill(generator, values, spec.matrices)
        for block, array in zip(blocks, arrays, strict=True):
            common = [_overlap(*parts) for parts in zip(block, piece, strict=True)]
            if all(common):
                target = array[_within(common, block)]
                np.multiply(values[_within(common, piece)], deviation, out=target)
                target += mean
                missing_values -= target.size


def _pieces(shape: Sequence[int]) -> Iterator[Block]:
    """Yield blocks of at most PIECE values that are adjacent in memory, in order."""
    sizes = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    """Values of one entry of each axis."""
    axis = next((axis for axis, size in enumerate(sizes) if size <= PIECE), len(shape) - 1)
    step = max(1, PIECE // sizes[axis])
    inner = [*map(range, shape[axis + 1 :])]
    for outer in itertools.product(*map(range, shape[:axis])):
        for start in range(0, shape[axis], step):
            lead = [range(index, index + 1) for index in outer]
            yield (*lead, range(start, min(start + step, shape[axis])), *inner)


def _overlap(a: range, b: range) -> range:
    return range(max(a.start, b.start), min(a.stop, b.stop))


def _within(part: Sequence[range], block: Block) -> tuple[Any, ...]:
    """Return a part of a block as an index into the block."""
    pairs = zip(part, block, strict=True)
    return (*(slice(p.start - b.start, p.stop - b.start) for p, b in pairs), ...)


@dataclass(frozen=True)
class Stacking:
    """Storage of the layers of a scanned model. `repeats.j.*` holds the layers j, j + period, ... along a
    leading axis; the remaining layers follow as `layers.i.*`, counted from the first remaining layer.

    With no repeats, stored and canonical paths are the same.
    """

    period: int = 1
    repeats: int = 0

    @property
    def stacked_layers(self) -> int:
        """Number of layers that are stacked."""
        return self.period * self.repeats

    def canonical_paths(self, stored: str) -> list[str]:
        """Return the canonical paths that a stored path holds, in the order of its leading axis."""
        kind, _, remainder = stored.partition(".")
        if kind not in ("repeats", "layers"):
            return [stored]
        index, _, leaf = remainder.partition(".")
        if kind == "layers":
            return [f"layers.{int(index) + self.stacked_layers}.{leaf}"]
        return [f"layers.{int(index) + self.period * repeat}.{leaf}" for repeat in range(self.repeats)]

    def stored_spec(self, path: str, spec: ParamSpec) -> ParamSpec:
        """Return the spec of a stored path, given the spec of one of its layers."""
        if not self.is_stacked(path):
            return spec
        return replace(spec, shape=(self.repeats, *spec.shape), axes=("layers", *spec.axes))

    def is_stacked(self, stored: str) -> bool:
        """Return whether a stored path holds several layers."""
        return stored.startswith("repeats.")

    def stack(
        self, canonical: Mapping[str, np.ndarray], stored: Mapping[str, ParamSpec]
    ) -> dict[str, np.ndarray]:
        """Convert arrays by canonical path to arrays by stored path."""
        return {
            path: np.stack([canonical[m] for m in self.canonical_paths(path)])
            if self.is_stacked(path)
            else canonical[self.canonical_paths(path)[0]]
            for path in stored
        }

    def unstack(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Convert arrays by stored path to arrays by canonical path."""
        canonical: dict[str, np.ndarray] = {}
        for path, array in arrays.items():
            layers = array if self.is_stacked(path) else [array]
            canonical |= zip(self.canonical_paths(path), layers, strict=True)
        return sort_by_path(canonical)


def sort_by_path(by_path: Mapping[str, T]) -> dict[str, T]:
    """Return the dict sorted by path, with layer 10 after layer 9."""
    return {path: by_path[path] for path in sorted(by_path, key=_path_key)}


def _path_key(path: str) -> list[tuple[int, str]]:
    return [(int(part), "") if re.fullmatch(r"\d+", part) else (-1, part) for part in path.split(".")]
