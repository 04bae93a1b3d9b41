"""Parameters by path: declared by a module, initialised on the host, one per layer or stacked for a scan."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

T = TypeVar("T")


@dataclass(frozen=True)
class ParamSpec:
    """Shape of a parameter, one logical axis name per dimension (`parallel.sharding.axis_rules`), and the
    mean and standard deviation of its initial normal distribution."""

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    mean: float
    deviation: float

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


def weight(shape: tuple[int, ...], axes: tuple[str | None, ...], *, fan_in: int, depth: int = 0) -> nnx.Param:
    """Declare a weight of variance 1 / fan_in. A weight that writes to the residual stream passes the model's
    depth and is scaled by 1 / sqrt(2 depth) (GPT-2, section 2.3)."""
    return _declare(shape, axes, 0.0, 1 / math.sqrt(fan_in * (2 * depth or 1)))


def gain(size: int, axis: str | None) -> nnx.Param:
    """Declare the gain of a norm, initialised to ones."""
    return constant(size, axis, 1.0)


def constant(size: int, axis: str | None, value: float) -> nnx.Param:
    """Declare one number per head (or similar), initialised to `value`: without noise or weight decay."""
    return _declare((size,), (axis,), value, 0.0)


def zeros(shape: tuple[int, ...], axes: tuple[str | None, ...]) -> nnx.Param:
    """Declare a matrix that is initialised to zero."""
    return _declare(shape, axes, 0.0, 0.0)


def _declare(
    shape: tuple[int, ...], axes: tuple[str | None, ...], mean: float, deviation: float
) -> nnx.Param:
    # Abstract: `init_param` makes the values on the host, so building a module of 10T parameters is free.
    abstract = jax.ShapeDtypeStruct(shape, jnp.float32)
    return nnx.Param(abstract, axes=axes, mean=mean, deviation=deviation)


def param_specs(module: nnx.Module) -> dict[str, ParamSpec]:
    """Return the specs of the parameters that a module declares, by path within it."""
    state = nnx.to_flat_state(nnx.state(module, nnx.Param))
    return {
        ".".join(map(str, path)): ParamSpec(param.shape, param.axes, param.mean, param.deviation)
        for path, param in state
    }


def count_parameters(module: nnx.Module) -> int:
    """Return the number of values of a module's parameters."""
    return sum(param.size for param in param_specs(module).values())


def init_param(seed: int, path: str, spec: ParamSpec) -> np.ndarray:
    """Return the float32 initial value of one parameter. It depends only on seed, path and spec."""
    if not spec.deviation:
        return np.full(spec.shape, spec.mean, np.float32)
    key = int.from_bytes(hashlib.sha256(f"{seed}/{path}".encode()).digest()[:16], "little")
    values = np.random.Generator(np.random.Philox(key=key)).standard_normal(spec.shape, np.float32)
    return np.float32(spec.mean) + values * np.float32(spec.deviation)


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
