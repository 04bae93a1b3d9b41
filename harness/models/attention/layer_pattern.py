"""Layers of several kinds in turn, as data: a cycle of mechanisms, each with its options.

Sliding windows with a global layer after each (arXiv:2408.00118), three linear layers to one by softmax
(arXiv:2412.06464, section 3.4), layers without positions among those with: all are lists in a config.
"""

from __future__ import annotations

from dataclasses import dataclass

from flax import nnx

from harness.core.errors import UserError
from harness.models.mechanism import Site
from harness.models.registry import Chosen, attention


@dataclass(frozen=True)
class Options:
    cycle: tuple[Chosen, ...]
    """Mechanisms of the first layers, `{name, options}` each; the layers after them repeat the cycle."""

    def at(self, site: Site) -> Chosen:
        return self.cycle[site.layer % len(self.cycle)]


@attention(
    "pattern",
    Options,
    model_flops=lambda site, options: options.at(site).model_flops(site),
    executed_flops=lambda site, options: options.at(site).executed_once(site),
    cache_bytes=lambda site, options, each: options.at(site).cache_bytes(site, each),
    splits=lambda site, options: options.at(site).splits(site),
    period=lambda options: len(options.cycle),
)
def pattern(site: Site, options: Options) -> nnx.Module:
    """The mechanism of one layer itself, so that its parameters have the paths that they have alone."""
    place = f"model.attention.options.cycle[{site.layer % len(options.cycle)}]"
    chosen = options.at(site)
    if chosen.period != 1:
        raise UserError(f"{place}.name={chosen.mechanism.name} is a pattern itself: write its layers out.")
    try:
        return chosen.module(site)
    except UserError as error:
        raise UserError(str(error).replace("model.attention.options", f"{place}.options")) from error
