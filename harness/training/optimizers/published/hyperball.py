"""MuonH: Muon on spheres. Each hidden matrix keeps the Frobenius norm that it starts with ("hyperball").

    R = |W_0|;  v = W - rate R u / |u|;  W = R v / |v|, with u of Muon

The rate is the share of the norm that a step moves, so it is the same at every size, and nothing decays
(marin-community/marin#5596). All other parameters are Adam's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from harness.core.errors import UserError
from harness.training.optimizers.muon import MuonOptions, orthogonal_factor
from harness.training.optimizers.optimizer_registry import register_optimizer
from harness.training.optimizers.parameter_group import ParameterGroup
from harness.training.optimizers.per_matrix import partition, per_matrix


@dataclass(frozen=True)
class HyperballOptions(MuonOptions):
    """Muon's options, and the learning rate of the rest."""

    others_rate: float = 0.2
    """Factor of the learning rate for all other parameters, whose steps Adam makes."""


class HyperballState(NamedTuple):
    """State of the momentum, and the first norm of each matrix, [L, 1, 1]."""

    momentum: Any
    radius: Any


@register_optimizer("muonh", HyperballOptions, rate_rule="relative")
def muonh(
    parameters: ParameterGroup, options: HyperballOptions, learning_rate: Any
) -> optax.GradientTransformation:
    """Build MuonH for hidden matrices and AdamW for the rest. Raises UserError if one starts at zero."""
    for path in parameters.matrices:
        if not parameters.specs[path].deviation:
            raise UserError(
                f"optimizer.name=muonh keeps the norm that a matrix starts with, and {path} starts at zero."
                " Train it with another optimizer in optimizer.groups."
            )
    momentum = optax.trace(options.momentum, nesterov=True)

    def init(params: Any) -> HyperballState:
        return HyperballState(momentum.init(params), jax.tree.map(norm_of_each, params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, HyperballState]:
        averages, trace = momentum.update(updates, state.momentum)

        def step(w_LIO: Array, m_LIO: Array, radius_L11: Array) -> Array:
            u_LIO = orthogonal_factor(m_LIO, options.ns_steps)
            moved_LIO = w_LIO - learning_rate * radius_L11 * u_LIO / norm_of_each(u_LIO)
            return radius_L11 * moved_LIO / norm_of_each(moved_LIO) - w_LIO

        return jax.tree.map(step, params, averages, state.radius), HyperballState(trace, state.radius)

    adam = optax.scale_by_adam(options.b1, options.b2, options.epsilon)
    return partition(
        parameters,
        matrices=per_matrix(parameters, optax.GradientTransformation(init, update)),
        others=parameters.descent(adam, options.others_rate * learning_rate),
    )


def norm_of_each(x_LIO: Float[Array, "L I O"]) -> Float[Array, "L 1 1"]:
    """Return the Frobenius norm of each matrix."""
    return jnp.sqrt(jnp.sum(jnp.square(x_LIO), axis=(1, 2), keepdims=True)) + 1e-12
