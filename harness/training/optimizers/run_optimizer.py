"""Optimizer of a run, built anew in the trace of each step from that step's learning rate and values."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from harness.config.schema.run import OptimizerConfig
from harness.config.socket_registry import Configured
from harness.training.optimizers.optimizer_parts import OptimizerPart
from harness.training.optimizers.optimizer_registry import Optimizer
from harness.training.optimizers.parameter_group import FIRST_STEP
from harness.training.step_inputs import StepInputs

RESTING = StepInputs(0.0)
"""Inputs of an optimizer that makes its state, or reads what is judged: neither depends on the step."""


@dataclass(frozen=True)
class RunOptimizer:
    """Optimizer of a run."""

    config: OptimizerConfig
    parts: tuple[OptimizerPart, ...]
    wrap: Callable[[Optimizer], Optimizer] = lambda optimizer: optimizer
    """Function that rounds what it keeps."""

    def __post_init__(self) -> None:
        """Raise UserError for an optimizer that cannot be built."""
        self.judges_others  # noqa: B018

    def at_step(self, inputs: StepInputs) -> Optimizer:
        """Return the optimizer of a step, to be used inside its trace."""
        optimizers = {part.name: _build(part, self.config, inputs) for part in self.parts}
        if len(optimizers) == 1:
            return self.wrap(*optimizers.values())
        return self.wrap(_join({part.name: [*part.parameters.specs] for part in self.parts}, optimizers))

    def init(self, params: Any) -> Any:
        """Return the state of step 0."""
        return self.at_step(RESTING).init(params)

    @functools.cached_property
    def judges_others(self) -> bool:
        """True if other parameters are judged than those that are trained."""
        answers = []

        def build(rate: Any) -> None:
            answers.append(self.at_step(StepInputs(rate)).judged is not None)

        jax.eval_shape(build, jax.ShapeDtypeStruct((), jnp.float32))
        return answers[0]

    def judged(self, params: Any, state: Any) -> Any:
        """Return the parameters that are judged."""
        read = self.at_step(RESTING).judged
        return read(params, state) if read else params

    @property
    def asks_clock(self) -> bool:
        """True if an optimizer asks for the place of a step."""
        return any(node.entry.told for part in self.parts for node in part.choice.nested())


def _build(part: OptimizerPart, config: OptimizerConfig, inputs: StepInputs) -> Optimizer:
    """Build the optimizer of a part, with the numbers of this step."""
    values = inputs.values or {}
    rate = inputs.learning_rate
    if part.rate != 1 or f"{part.key}.learning_rate" in values:
        rate = rate * values.get(f"{part.key}.learning_rate", part.rate)
    decay = values.get("optimizer.weight_decay", config.weight_decay)
    if part.decay is not None:
        decay = values.get(f"{part.key}.weight_decay", part.decay)
    clock = inputs.clock or FIRST_STEP
    parameters = replace(part.parameters, weight_decay=decay, clock=clock)
    return parameters.build(_with_values(part.choice, part.options_key, values), rate)


def _with_values(choice: Configured, key: str, values: Mapping[str, Any]) -> Configured:
    """Return an optimizer with the numbers of this step in its options, and in those of the optimizers among
    them."""
    if not any(name.startswith(f"{key}.") for name in values):
        return choice
    options = copy.copy(choice.options)
    for field in dataclasses.fields(options):
        value, name = getattr(options, field.name), f"{key}.{field.name}"
        if isinstance(value, Configured):
            value = _with_values(value, f"{name}.options", values)
        # Not `replace`: checks of the options cannot see the value of a traced number.
        object.__setattr__(options, field.name, values.get(name, value))
    return replace(choice, options=options)


def _join(paths: Mapping[str, list[str]], optimizers: Mapping[str, Optimizer]) -> Optimizer:
    """Return the optimizer of several parts of the parameters, with their states by name."""

    def split(tree: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        return {name: {path: tree[path] for path in part} for name, part in paths.items()}

    def merged(by_name: Mapping[str, Mapping[str, Any]], order: Mapping[str, Any]) -> dict[str, Any]:
        flat = {path: leaf for part in by_name.values() for path, leaf in part.items()}
        return {path: flat[path] for path in order}

    def init(params: Any) -> Any:
        params_of = split(params)
        return {name: optimizer.init(params_of[name]) for name, optimizer in optimizers.items()}

    def update(updates: Any, state: Any, params: Any, **extra: Any) -> tuple[Any, Any]:
        grads_of, params_of = split(updates), split(params)
        results = {
            name: optimizer.update(grads_of[name], state[name], params_of[name], **extra)
            for name, optimizer in optimizers.items()
        }
        parts = {name: result for name, (result, _) in results.items()}
        return merged(parts, updates), {name: part for name, (_, part) in results.items()}

    def read(kind: str) -> Callable[[Any, Any], Any] | None:
        views = {name: getattr(optimizer, kind) for name, optimizer in optimizers.items()}

        def read_parts(params: Any, state: Any) -> Any:
            params_of = split(params)
            parts = {
                name: f(params_of[name], state[name]) if f else params_of[name] for name, f in views.items()
            }
            return merged(parts, params)

        return read_parts if any(views.values()) else None

    return Optimizer(init, update, read("at"), read("judged"))
