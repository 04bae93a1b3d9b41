"""Registries of what surrounds the layers' mechanisms: block, position, embedding, head, objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from harness.config.socket_registry import Configured, NoOptions, Registry
from harness.models.mechanism import LayerContext

OBJECTIVE_ARGUMENTS = 3
"""Number of an objective's own arguments: self, forward, tokens."""

Implementation = TypeVar("Implementation", bound=Callable[..., Any])


@dataclass(frozen=True)
class SocketEntry:
    """A registered class or function with its options."""

    name: str
    options: type
    implementation: Any
    gives: tuple[str, ...] = ()
    """Names of the arrays that it gives to the mechanisms after it."""
    off: Any = None
    """Options with which it is the default of its node, bit for bit, as is checked; None: no such options."""


@dataclass(frozen=True)
class BlockEntry(SocketEntry):
    """A registered block: how the two branches of a layer meet the residual stream."""

    stream: Any = None
    """Class of the module that opens the stream from the embedding and closes it before the final norm; None:
    the stream is x [B, T, D]."""
    order: Callable[[Any, int], tuple[int, ...]] | None = None
    """Function from options and the number of layers to the layer at each place; None: each once,
    in order."""
    scans: bool = False
    """True if no layer changes the shape of the stream and none depends on its index, so that a scan may
    repeat it. Otherwise layers are unrolled."""


@dataclass(frozen=True)
class EmbeddingEntry(SocketEntry):
    """A registered embedding: what the layers read, from the rows of the table."""

    table_width: Callable[[LayerContext, Any], int] | None = None
    """Width of the table's rows; None: that of the model."""


class ConfiguredSocket(Configured[Any]):
    """An entry with its validated options."""

    def build(self, context: LayerContext, *arguments: Any) -> Any:
        """Build the module. Its parameters are declared, not initialised."""
        return self.entry.implementation(context, self.options, *arguments)


BLOCKS: Registry[BlockEntry] = Registry("block", "model.block", ConfiguredSocket)
POSITIONS: Registry[SocketEntry] = Registry("position", "model.position", ConfiguredSocket)
EMBEDDINGS: Registry[EmbeddingEntry] = Registry("embedding", "model.embedding", ConfiguredSocket)
HEADS: Registry[SocketEntry] = Registry("head", "model.head", ConfiguredSocket)
OBJECTIVES: Registry[SocketEntry] = Registry("objective", "objective", ConfiguredSocket)


def _register(registry: Registry[Any], entry: Callable[..., Any]) -> Callable[..., Any]:
    def register(
        name: str, options: type = NoOptions, **facts: Any
    ) -> Callable[[Implementation], Implementation]:
        def decorate(implementation: Implementation) -> Implementation:
            registry.add(entry(name, options, implementation, **facts))
            return implementation

        return decorate

    register.__doc__ = f"Return the decorator that registers {registry.kind} `name` with its options."
    return register


register_block = _register(BLOCKS, BlockEntry)
register_position = _register(POSITIONS, SocketEntry)
register_embedding = _register(EMBEDDINGS, EmbeddingEntry)
register_head = _register(HEADS, SocketEntry)
register_objective = _register(OBJECTIVES, SocketEntry)
