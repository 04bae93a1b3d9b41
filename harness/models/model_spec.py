"""A model config at one shape: which mechanism stands where."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from harness.config.schema.run import ModelConfig
from harness.models.mechanism import Shape, Site
from harness.models.registry import Chosen, choose


@dataclass(frozen=True)
class Blueprint:
    config: ModelConfig
    shape: Shape
    sequence_length: int
    sequences: int = 1
    """That one device takes at once."""
    end: int | None = None
    """The token after which attention starts anew; None: it never does."""
    parts: int = 1
    """Devices that share a sequence."""

    @cached_property
    def attention(self) -> Chosen:
        return choose("attention", self.config.attention)

    @cached_property
    def feedforward(self) -> Chosen:
        return choose("feedforward", self.config.feedforward)

    @property
    def called(self) -> str:
        """What an error calls it."""
        feedforward = self.config.feedforward.name
        other = [feedforward] if feedforward != "swiglu" else []
        return f"'{' with '.join([self.config.attention.name, *other])}' decoder"

    @property
    def period(self) -> int:
        """After how many layers the pattern of mechanisms repeats."""
        return math.lcm(self.attention.period, self.feedforward.period)

    @property
    def sites(self) -> list[Site]:
        return [self.site(layer) for layer in range(self.shape.layers)]

    def site(self, layer: int) -> Site:
        config = self.config
        return Site(
            self.shape,
            layer,
            self.sequence_length,
            config.qk_norm,
            config.norm_epsilon,
            self.sequences,
            self.parts,
        )
