"""Sliding-window attention: each query sees the last keys only."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.errors import UserError
from harness.models.attention import grouped_query
from harness.models.mechanism import LayerContext


@dataclass(frozen=True, kw_only=True)
class WindowOptions(grouped_query.GroupedOptions):
    """Options of `window`."""

    window: int
    """Number of keys that a query sees: its own and those just before it."""


@grouped_query.register_softmax("window", WindowOptions)
class WindowedAttention(grouped_query.SoftmaxAttention):
    """Sliding-window attention (arXiv:2004.05150); in a `pattern`, between layers that see all keys."""

    def __init__(self, context: LayerContext, options: WindowOptions):
        if not 1 <= options.window <= context.sequence_length:
            raise UserError(
                f"model.attention.options.window={options.window} is outside the context."
                f" Choose 1 to data.sequence_length={context.sequence_length}."
            )
        super().__init__(context, options)
