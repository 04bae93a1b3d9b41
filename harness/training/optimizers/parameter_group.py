"""Parameters that one optimizer trains, and what it may know of them."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from harness.config.socket_registry import Configured
from harness.models.parameters import ParamSpec
from harness.models.step_clock import StepClock
from harness.training.optimizers.matrices import Matrices
from harness.training.optimizers.optax_factories import Factory, applies_decay, call_factory, has_rate
from harness.training.optimizers.optimizer_registry import Optimizer, OptimizerEntry, RateRule

RateScales = Mapping[str, float]
"""Factors of the learning rate by parameter path."""

KEY_STREAM = 0x0B7
"""Integer that tells random draws of the optimizer from those of the model."""

FIRST_STEP = StepClock(0, 0.0, 0)


@dataclass(frozen=True)
class ParameterGroup:
    """Trainable parameters by stored path. Gradients, updates and parameters are dicts by these paths."""

    specs: Mapping[str, ParamSpec]
    """Shape, axes and kind of each."""
    decays: Mapping[str, bool]
    """Flags of weight decay: true for matrices, false for gains."""
    width_factors: RateScales
    """Factors of Adam's learning rate at this size (`model.scaling`); all 1 at the base size."""
    matrices: Matrices = field(default_factory=dict)
    """Hidden matrices among them."""
    decay_factors: RateScales = field(default_factory=dict)
    """Factors of the share that decay removes (`model.scaling`); 1 for what is not named."""
    epsilon_factors: RateScales = field(default_factory=dict)
    """Factors of Adam's epsilon; 1 for what is not named."""
    weight_decay: Any = 0.0
    """Share of a parameter that one step at learning rate 1 removes."""
    rate_rule: RateRule | None = "entries"
    """Rule of the optimizer that is built."""
    clock: StepClock = FIRST_STEP
    """Place of the step, for those who ask for it."""

    @property
    def rates(self) -> RateScales:
        """Factors of the learning rate by the rule of this optimizer. The rules are about hidden matrices;
        all other parameters keep Adam's."""
        if self.rate_rule == "spectral":
            return {**self.width_factors, **{path: matrix.rate for path, matrix in self.matrices.items()}}
        if self.rate_rule == "relative":
            return {**self.width_factors, **dict.fromkeys(self.matrices, 1.0)}
        return self.width_factors

    def only(self, paths: Collection[str]) -> ParameterGroup:
        """Return the group of these parameters alone."""
        tables = ("specs", "decays", "width_factors", "matrices", "decay_factors", "epsilon_factors")
        parts = {
            name: {path: value for path, value in getattr(self, name).items() if path in paths}
            for name in tables
        }
        return replace(self, **parts)

    def descent(
        self, direction: optax.GradientTransformation, learning_rate: Any
    ) -> optax.GradientTransformation:
        """Return the optimizer of a direction: times the factors by path, plus decay, times minus the
        learning rate. Decay comes after the factors, so its share is the same at every width. A gradient that
        is divided by a factor meets an epsilon that is larger by it."""
        widen_epsilon = _scale_per_path({path: 1 / factor for path, factor in self.epsilon_factors.items()})
        chain = [*widen_epsilon, direction, *_scale_per_path(self.rates), self._decay()]
        return _times_rate(optax.chain(*chain), learning_rate)

    def _decay(self) -> optax.GradientTransformation:
        if all(factor == 1 for factor in self.decay_factors.values()):
            return optax.add_decayed_weights(self.weight_decay, mask=dict(self.decays))
        shares = {path: self.decay_factors.get(path, 1.0) * decays for path, decays in self.decays.items()}

        def decay(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
            add = lambda update, param, share: update + self.weight_decay * share * param  # noqa: E731
            return jax.tree.map(add, updates, params, shares)

        return optax.stateless(decay)

    def decayed(self, updates: Any, params: Any, learning_rate: Any) -> Any:
        """Return updates with the weight decay that `descent` would add."""
        decay = _times_rate(optax.with_extra_args_support(self._decay()), learning_rate)
        shares, _ = decay.update(jax.tree.map(jnp.zeros_like, updates), decay.init(params), params)
        return jax.tree.map(jnp.add, updates, shares)

    def build(self, choice: Configured[OptimizerEntry], learning_rate: Any) -> Optimizer:
        """Build an optimizer of these parameters: for wrappers, which have one among their options."""
        entry = choice.entry
        answers = {
            "progress": self.clock.progress,
            "step": self.clock.step,
            "key": self.clock.key(KEY_STREAM) if "key" in entry.told else None,
        }
        arguments = {name: answers[name] for name in entry.told}
        group = replace(self, rate_rule=entry.rate_rule)
        return _as_optimizer(entry.implementation(group, choice.options, learning_rate, **arguments))

    def from_optax(
        self, factory: Factory, options: Mapping[str, Any], learning_rate: Any
    ) -> optax.GradientTransformation | Optimizer:
        """Call a function of optax. It gets weight decay, and which parameters decay, if it takes them."""
        run = {"learning_rate": learning_rate, "weight_decay": self.weight_decay}
        inner = call_factory(factory, {**options, **run}, self.decays)
        if not has_rate(factory):
            return self.descent(inner, learning_rate)
        if factory.__name__.startswith("schedule_free"):
            return Optimizer(inner.init, inner.update, judged=_schedule_free_average)
        if applies_decay(factory):
            return inner
        decay = optax.add_decayed_weights(-learning_rate * self.weight_decay, mask=dict(self.decays))
        return optax.chain(inner, decay)


def _as_optimizer(result: optax.GradientTransformation | Optimizer) -> Optimizer:
    """Return an optimizer whose `update` takes any extra argument."""
    parts = (result.at, result.judged) if isinstance(result, Optimizer) else ()
    plain = optax.GradientTransformation(result.init, result.update)
    if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(result.update).parameters.values()):
        plain = optax.GradientTransformationExtraArgs(result.init, result.update)
    accepting = optax.with_extra_args_support(plain)
    return Optimizer(accepting.init, accepting.update, *parts)


def _times_rate(
    descent: optax.GradientTransformationExtraArgs, learning_rate: Any
) -> optax.GradientTransformationExtraArgs:
    """Multiply updates by minus the learning rate. It is not in the chain, whose state names its parts."""

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        updates, state = descent.update(updates, state, params, **extra)
        return jax.tree.map(lambda update: -learning_rate * update, updates), state

    return optax.GradientTransformationExtraArgs(descent.init, update)


def _scale_per_path(factors: RateScales) -> list[optax.GradientTransformation]:
    """Return the transformation that multiplies by these factors; none if all are 1."""
    if all(factor == 1 for factor in factors.values()):
        return []

    def scale(updates: Any, params: optax.Params | None) -> optax.Updates:
        masked = {path for path, update in updates.items() if isinstance(update, optax.MaskedNode)}
        return {
            path: update if path in masked else update * factors.get(path, 1.0)
            for path, update in updates.items()
        }

    return [optax.stateless(scale)]


def _schedule_free_average(params: Any, state: Any) -> Any:
    return optax.contrib.schedule_free_eval_params(state, params)
