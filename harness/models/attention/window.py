"""Attention to the last keys alone (arXiv:2004.05150); in a `pattern`, between layers that see all."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.errors import UserError
from harness.models.attention import grouped_query
from harness.models.mechanism import Site
from harness.models.registry import attention


@dataclass(frozen=True, kw_only=True)
class Options(grouped_query.Grouped):
    window: int
    """Keys that a query sees: its own and those just before it."""


@attention(
    "window",
    Options,
    model_flops=lambda site, options: grouped_query.model_flops(site, options.kv_heads, options.window),
    executed_flops=lambda site, options: grouped_query.executed_flops(site, options.kv_heads, options.window),
    cache_bytes=lambda site, options, each: grouped_query.cache_bytes(
        site, each, options.kv_heads, options.window
    ),
    splits=grouped_query.splits,
)
class WindowedAttention(grouped_query.Attention):
    def __init__(self, site: Site, options: Options):
        if not 1 <= options.window <= site.sequence_length:
            raise UserError(
                f"model.attention.options.window={options.window} is outside the context:"
                f" choose 1 to data.sequence_length={site.sequence_length}."
            )
        super().__init__(site, options.kv_heads, options.window, options)
