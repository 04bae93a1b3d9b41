"""A model config at one shape: which mechanism stands where."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from harness.config.schema.run import ModelConfig
from harness.models.mechanism import LayerContext, ModelDims
from harness.models.registry import ConfiguredModule, lookup


@dataclass(frozen=True)
class ModelSpec:
    config: ModelConfig
    shape: ModelDims
    sequence_length: int
    per_device_batch: int = 1
    """That one device takes at once."""
    end_token: int | None = None
    """The token after which attention starts anew; None: it never does."""
    sequence_shards: int = 1
    """Devices that share a sequence."""

    @cached_property
    def attention(self) -> ConfiguredModule:
        return lookup("attention", self.config.attention)

    @cached_property
    def feedforward(self) -> ConfiguredModule:
        return lookup("feedforward", self.config.feedforward)

    @property
    def display_name(self) -> str:
        """What an error calls it."""
        feedforward = self.config.feedforward.name
        other = [feedforward] if feedforward != "swiglu" else []
        return f"'{' with '.join([self.config.attention.name, *other])}' decoder"

    @property
    def period(self) -> int:
        """After how many layers the pattern of mechanisms repeats."""
        return math.lcm(self.attention.period, self.feedforward.period)

    @property
    def layer_contexts(self) -> list[LayerContext]:
        return [self.layer_context(layer) for layer in range(self.shape.layers)]

    def layer_context(self, layer: int) -> LayerContext:
        config = self.config
        return LayerContext(
            self.shape,
            layer,
            self.sequence_length,
            config.qk_norm,
            config.norm_epsilon,
            self.per_device_batch,
            self.sequence_shards,
        )
