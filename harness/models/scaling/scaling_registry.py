"""Registry of scalings: how a parameter of a larger model is trained, relative to that of the base model.

    @register_scaling("mine", Options)
    def mine(path: str, spec: ParamSpec, growth: Growth, options: Options) -> Scale: ...

Multipliers of embedding and head are those of muP, r^(1/2) and r^(-1/2), whatever the rule (`models.mup`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from harness.config.socket_registry import Configured, NoOptions, Registry
from harness.models.mup import learning_rate_scale
from harness.models.parameters import ParamSpec

Rule = TypeVar("Rule", bound=Callable[..., "Scale"])


@dataclass(frozen=True)
class Growth:
    """Size of a model relative to the one that its learning rate is meant for."""

    width: float
    """Width over `model.base_width`; 1 if that is null."""
    layers: int
    """Number of layers of the model."""


@dataclass(frozen=True)
class Scale:
    """Factors of one parameter; 1 changes nothing."""

    rate: float = 1.0
    """Factor of the learning rate, for updates whose entries have Adam's size. 0 freezes the parameter, if
    `decay` is 0 too."""
    decay: float = 1.0
    """Factor of the share that weight decay removes in a step."""
    deviation: float = 1.0
    """Factor of the standard deviation of the initial values."""
    epsilon: float = 1.0
    """Factor of Adam's epsilon, for optimizers whose updates do not depend on the size of the gradients."""


@dataclass(frozen=True)
class ScalingEntry:
    """A registered scaling."""

    name: str
    options: type
    implementation: Callable[[str, ParamSpec, Growth, Any], Scale]


class ConfiguredScaling(Configured[ScalingEntry]):
    """A scaling with its options."""

    def scale(self, path: str, spec: ParamSpec, growth: Growth) -> Scale:
        """Return the factors of the parameter at this canonical path."""
        return self.entry.implementation(path, spec, growth, self.options)


SCALINGS: Registry[ScalingEntry] = Registry("scaling", "model.scaling", ConfiguredScaling)


def register_scaling(name: str, options: type = NoOptions) -> Callable[[Rule], Rule]:
    """Return the decorator that registers a function as a scaling. It raises UserError if another function
    has the name."""

    def register(rule: Rule) -> Rule:
        SCALINGS.add(ScalingEntry(name, options, rule))
        return rule

    return register


@register_scaling("mup")
def mup(path: str, spec: ParamSpec, growth: Growth, options: NoOptions) -> Scale:
    """Return muP's factor of the learning rate (`models.mup`)."""
    return Scale(rate=learning_rate_scale(spec, growth.width))
