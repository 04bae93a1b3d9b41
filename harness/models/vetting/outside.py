"""Config nodes of a model that name something from outside the package."""

from __future__ import annotations

from collections.abc import Iterator

from harness.config.socket_registry import Configured
from harness.models.diffusion.model_spec import ImageModelSpec
from harness.models.model_spec import ModelSpec
from harness.models.sockets.entries import POSITIONS


def is_outside(node: Configured) -> bool:
    """Return whether an implementation, or one that its options name, is not the harness's own. The harness's
    own have tests."""
    modules = (nested.entry.implementation.__module__ for nested in node.nested())
    return any(module.partition(".")[0] != "harness" for module in modules)


def outside_nodes(spec: ModelSpec) -> dict[str, Configured]:
    """Return the config nodes of a model that name something from outside."""
    return {key: node for key, node in _nodes(spec) if is_outside(node)}


def _nodes(spec: ModelSpec) -> Iterator[tuple[str, Configured]]:
    if isinstance(spec, ImageModelSpec):
        yield "model.conditioning", spec.conditioning
    else:
        yield "model.attention", spec.attention
        yield "model.block", spec.block
        yield "model.embedding", spec.embedding
        yield "model.head", spec.head
        yield "model.position", POSITIONS.lookup(spec.config.position)
        yield "objective", spec.configured_objective
    yield "model.feedforward", spec.feedforward
    yield "model.norm", spec.norm


def named(nodes: dict[str, Configured]) -> str:
    """Return the nodes with their names, for messages."""
    return " and ".join(f"{key}.name={node.name}" for key, node in nodes.items())
