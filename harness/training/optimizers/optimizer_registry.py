"""Registry of optimizers.

    @register_optimizer("mine", Options, rate_rule="entries")
    def mine(parameters: ParameterGroup, options: Options, learning_rate: Array):
        return parameters.descent(optax.trace(options.decay), learning_rate)

The function is called inside the traced step, with the learning rate and the options of that step. What it
returns follows optax: updates are added to the parameters. More arguments are requests, by name: `progress`,
`step` and `key`, those of `StepClock`.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import optax

from harness.config.schema.run import ModuleConfig
from harness.config.socket_registry import Configured, NoOptions, Registry
from harness.core.errors import UserError, did_you_mean
from harness.training.optimizers.optax_factories import OPTAX, RUN_ARGUMENTS, factory_options, find_factory

RateRule = Literal["entries", "spectral", "relative", "inner"]
"""Rule of learning rates across widths: as those of updates whose entries have Adam's size (`entries`), of
orthogonal matrices at that size (`spectral`), of matrices whose size is already that of their shape or norm
(`relative`), or as those of the optimizers among the options (`inner`)."""

TOLD = ("progress", "step", "key")
"""Arguments that a registered function may ask for after the learning rate."""


class Optimizer(NamedTuple):
    """Optimizer whose parameters are not, or not only, those that are differentiated or judged. An optimizer
    that needs neither is a plain `optax.GradientTransformation`."""

    init: optax.TransformInitFn
    """Function of the parameters that returns the state of step 0. It depends on nothing else."""
    update: Callable[..., tuple[Any, Any]]
    """Function of gradients, state and parameters that returns (updates, state). The updates are added. With
    `**extra` it is given `value`, the loss, as optax names it."""
    at: Callable[[Any, Any], Any] | None = None
    """Function of (parameters, state): where the gradient is taken."""
    judged: Callable[[Any, Any], Any] | None = None
    """Function of (parameters, state): what is evaluated, sampled, exported, and starts a fine-tuning."""


@dataclass(frozen=True)
class OptimizerEntry:
    """Registered optimizer."""

    name: str
    options: type
    implementation: Callable[..., optax.GradientTransformation | Optimizer]
    rate_rule: RateRule | None
    """Rule of learning rates across widths; None: not known."""
    flat_keys: tuple[str, ...] = ()
    """Fields of the options that are keys of the config node itself, such as `optimizer.b1`."""

    @property
    def told(self) -> tuple[str, ...]:
        """Arguments that the function asks for."""
        return tuple(inspect.signature(self.implementation).parameters)[3:]


class OptimizerRegistry(Registry[OptimizerEntry]):
    """Optimizers by name. A dotted name, such as `optax.contrib.prodigy`, is that function of optax."""

    def lookup(self, node: ModuleConfig, key: str | None = None) -> Configured[OptimizerEntry]:
        """Return the optimizer of a node with its options. Raises UserError."""
        if node.name.startswith(OPTAX):
            self._find_in_optax(node, key or self.key)
        return super().lookup(node, key)

    def _find_in_optax(self, node: ModuleConfig, key: str) -> None:
        for name in RUN_ARGUMENTS:
            if name in node.options:
                raise UserError(
                    f"{key}.options.{name} is given by the run. Set optimizer.learning_rate or"
                    " optimizer.weight_decay instead."
                )
        if node.name not in self.entries:
            self.add(_optax_entry(node.name, key))


OPTIMIZERS = OptimizerRegistry("optimizer", "optimizer")

Build = TypeVar("Build", bound=Callable[..., Any])


def register_optimizer(
    name: str,
    options: type = NoOptions,
    *,
    rate_rule: RateRule | None = None,
    flat_keys: tuple[str, ...] = (),
) -> Callable[[Build], Build]:
    """Return the decorator that registers a function as an optimizer, with the frozen dataclass of its
    options. Raises UserError if another function has the name, or this one asks for something unknown."""

    def register(build: Build) -> Build:
        entry = OptimizerEntry(name, options, build, rate_rule, flat_keys)
        for request in entry.told:
            if request not in TOLD:
                raise UserError(f"optimizer '{name}' asks for '{request}': {did_you_mean(request, TOLD)}")
        OPTIMIZERS.add(entry)
        return build

    return register


def _optax_entry(name: str, key: str) -> OptimizerEntry:
    """Build the entry of a function of optax. Its rule across widths is not known."""
    factory = find_factory(name, key)

    def build(parameters: Any, options: Any, learning_rate: Any) -> optax.GradientTransformation:
        arguments = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
        return parameters.from_optax(factory, arguments, learning_rate)

    build.__qualname__ = name
    return OptimizerEntry(name, factory_options(name, factory), build, None)
