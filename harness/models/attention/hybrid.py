"""Sliding-window layers with a global layer every n-th (arXiv:2408.00118, section 2)."""

from __future__ import annotations

from dataclasses import dataclass

from harness.config.errors import UserError
from harness.models.attention import core
from harness.models.contract import Site
from harness.models.registry import attention


@dataclass(frozen=True)
class Options:
    window: int
    """Keys that a local layer sees: the query's own and those just before it."""
    global_every: int
    """Each layer whose number (from 1) is a multiple of this is global; 0: none is."""


def window_of(site: Site, options: Options) -> int | None:
    """The window of one layer; None where it is global."""
    is_global = options.global_every > 0 and (site.layer + 1) % options.global_every == 0
    return None if is_global else options.window


@attention(
    "hybrid",
    Options,
    model_flops=lambda site, options: core.model_flops(site, site.shape.heads, window_of(site, options)),
    executed_flops=lambda site, options: core.executed_flops(
        site, site.shape.heads, window_of(site, options)
    ),
    period=lambda options: max(1, options.global_every),
)
class HybridAttention(core.Attention):
    def __init__(self, site: Site, options: Options):
        if not 1 <= options.window <= site.sequence_length:
            raise UserError(
                f"model.attention.options.window={options.window} is outside the context:"
                f" choose 1 to data.sequence_length={site.sequence_length}."
            )
        if options.global_every < 0:
            raise UserError(
                f"model.attention.options.global_every={options.global_every} is negative: 0 means none."
            )
        super().__init__(site, site.shape.heads, window_of(site, options))
