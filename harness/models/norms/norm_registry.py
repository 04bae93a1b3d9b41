"""Registry of norms: what `LayerContext.norm` builds.

    @register_norm("mine", Options)
    class Mine(nnx.Module):
        def __init__(self, size: int, axis: str | None, context: LayerContext, options: Options): ...
        def __call__(self, x): ...

A norm maps [..., size] to the same shape and dtype. `axis` is the logical name of the last axis: `width` for
the residual stream, None inside a head or a latent. Its parameters are gains and biases: vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from jax import Array

from harness.config.socket_registry import Configured, NoOptions, Registry

Implementation = TypeVar("Implementation", bound=Callable[..., Any])


class Norm(Protocol):
    """A module that maps x to x normalised, of the same shape and dtype."""

    def __call__(self, x: Array) -> Array:
        """Normalise [..., size] over its last axis."""
        ...


@dataclass(frozen=True)
class NormEntry:
    """A registered norm."""

    name: str
    options: type
    implementation: Callable[..., Norm]


class ConfiguredNorm(Configured[NormEntry]):
    """A norm with its options."""

    def build(self, size: int, axis: str | None, context: Any) -> Norm:
        """Build the norm of an axis of this size in a layer. Its parameters are declared, not initialised."""
        return self.entry.implementation(size, axis, context, self.options)


NORMS: Registry[NormEntry] = Registry("norm", "model.norm", ConfiguredNorm)


def register_norm(name: str, options: type = NoOptions) -> Callable[[Implementation], Implementation]:
    """Return the decorator that registers a norm, or a function that builds one, under `name`. It raises
    UserError if another norm has the name."""

    def register(norm: Implementation) -> Implementation:
        NORMS.add(NormEntry(name, options, norm))
        return norm

    return register
