"""Variants of Muon: another direction for hidden matrices, from the same momentum."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from harness.training.optimizers.muon import ADAM_RMS, MuonOptions
from harness.training.optimizers.parameter_group import ParameterGroup
from harness.training.optimizers.per_matrix import partition, per_matrix

Direction = Callable[[Float[Array, "L I O"]], Float[Array, "L I O"]]
"""Function from the momentum of matrices to the direction that is descended."""


def muon_like(
    parameters: ParameterGroup,
    options: MuonOptions,
    learning_rate: Any,
    direction: Direction | optax.GradientTransformation,
) -> optax.GradientTransformation:
    """Return an optimizer of hidden matrices by a direction of their Nesterov momentum, [L, I, O], and of
    all other parameters by Adam. A direction that keeps a state, or reads the matrices, is a
    transformation."""
    if not isinstance(direction, optax.GradientTransformation):
        direction = each_matrix(direction)
    momentum = optax.trace(options.momentum, nesterov=True)
    matrices = optax.chain(momentum, per_matrix(parameters, direction))
    adam = optax.scale_by_adam(options.b1, options.b2, options.epsilon)
    return parameters.descent(partition(parameters, matrices=matrices, others=adam), learning_rate)


def each_matrix(function: Callable[..., Array], *, with_params: bool = False) -> optax.GradientTransformation:
    """Return the transformation that applies a function to each update, or to update and parameter."""
    if with_params:
        return optax.stateless(lambda updates, params: jax.tree.map(function, updates, params))
    return optax.stateless(lambda updates, params: jax.tree.map(function, updates))


def adam_sized(u_LIO: Float[Array, "L I O"]) -> Float[Array, "L I O"]:
    """Return each matrix at the root mean square of Adam's updates."""
    norm_L11 = jnp.sqrt(jnp.sum(jnp.square(u_LIO), axis=(1, 2), keepdims=True)) + 1e-12
    return ADAM_RMS * math.sqrt(u_LIO[0].size) * u_LIO / norm_L11
