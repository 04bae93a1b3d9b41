"""Scion: steps towards the extreme point of a ball, in a norm for each kind of parameter (arXiv:2502.07529).

    m = momentum m + (1 - momentum) g;  W = (1 - rate) W - rate radius u
    hidden matrices: u = max(1, sqrt(O / I)) times the orthogonal factor of m
    input embedding: each row of m at root mean square 1;  head, or one table for both: sign(m) / width
    gains: m at root mean square 1

That is descent along radius u with a weight decay of 1, or without any (unconstrained Scion). The norms are
meant to carry the learning rate across widths on their own, without muP's multipliers: no rule is set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from harness.training.optimizers.muon import orthogonal_factor
from harness.training.optimizers.optimizer_registry import register_optimizer
from harness.training.optimizers.parameter_group import ParameterGroup
from harness.training.optimizers.per_matrix import partition, per_matrix


@dataclass(frozen=True)
class ScionOptions:
    """Momentum, and the radii of the balls."""

    momentum: float = 0.9
    ns_steps: int = 5
    hidden_radius: float = 3.0
    head_radius: float = 10.0


@register_optimizer("scion", ScionOptions)
def scion(
    parameters: ParameterGroup, options: ScionOptions, learning_rate: Any
) -> optax.GradientTransformation:
    """Build Scion; `optimizer.weight_decay` is 1 (constrained) or 0."""

    def hidden(m_LIO: Array) -> Array:
        size = max(1.0, math.sqrt(m_LIO.shape[2] / m_LIO.shape[1]))
        return options.hidden_radius * size * orthogonal_factor(m_LIO, options.ns_steps)

    def other(path: str, m: Array) -> Array:
        axes = parameters.specs[path].axes
        if "vocabulary" not in axes:
            return m / _rms(m, tuple(range(m.ndim)))
        if path == "embedding" and "head" in parameters.specs:
            return m / _rms(m, (axes.index("width"),))
        return options.head_radius * jnp.sign(m) / m.shape[axes.index("width")]

    def others(updates: Any, params: Any) -> Any:
        is_masked = {path: isinstance(m, optax.MaskedNode) for path, m in updates.items()}
        return {path: m if is_masked[path] else other(path, m) for path, m in updates.items()}

    matrices = per_matrix(parameters, optax.stateless(lambda updates, params: jax.tree.map(hidden, updates)))
    direction = partition(parameters, matrices=matrices, others=optax.stateless(others))
    average = optax.ema(options.momentum, debias=False)
    return parameters.descent(optax.chain(average, direction), learning_rate)


def _rms(x: Array, axes: tuple[int, ...]) -> Array:
    return jnp.sqrt(jnp.mean(jnp.square(x), axis=axes, keepdims=True)) + 1e-12
