"""NorMuon: Muon with one second moment for each neuron (arXiv:2510.05491, algorithm 1).

    o = orthogonal factor of the momentum;  v = b2 v + (1 - b2) mean over inputs of o^2, for each output
    u = o / (sqrt(v) + epsilon), brought to root mean square 0.2

The momentum is Muon's here, with Nesterov's step. All other parameters are Adam's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from harness.training.optimizers.muon import ADAM_RMS, MuonOptions, orthogonal_factor
from harness.training.optimizers.parameter_group import ParameterGroup
from harness.training.optimizers.per_matrix import partition, per_matrix
from harness.training.optimizers.published.hyperball import norm_of_each
from harness.training.optimizers.registry import register_optimizer


@dataclass(frozen=True)
class NorMuonOptions(MuonOptions):
    """Muon's options, and the decay of the neurons' second moment."""

    neuron_decay: float = 0.95


@register_optimizer("normuon", NorMuonOptions)
def normuon(
    parameters: ParameterGroup, options: NorMuonOptions, learning_rate: Any
) -> optax.GradientTransformation:
    """Build NorMuon for hidden matrices, and AdamW for the rest."""
    adam = optax.scale_by_adam(options.b1, options.b2, options.epsilon)
    momentum = optax.trace(options.momentum, nesterov=True)
    neurons = per_matrix(parameters, scale_neurons(options))
    direction = partition(parameters, matrices=optax.chain(momentum, neurons), others=adam)
    return parameters.descent(direction, learning_rate)


def scale_neurons(options: NorMuonOptions) -> optax.GradientTransformation:
    """Return the transformation from the momentum of matrices [L, I, O] to their directions."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        factors = jax.tree.map(lambda m_LIO: orthogonal_factor(m_LIO, options.ns_steps), updates)

        def average(v_L1O: Array, o_LIO: Array) -> Array:
            mean_L1O = jnp.mean(jnp.square(o_LIO), axis=1, keepdims=True)
            return options.neuron_decay * v_L1O + (1 - options.neuron_decay) * mean_L1O

        def direction(o_LIO: Array, v_L1O: Array) -> Array:
            u_LIO = o_LIO / (jnp.sqrt(v_L1O) + options.epsilon)
            return ADAM_RMS * math.sqrt(u_LIO[0].size) * u_LIO / norm_of_each(u_LIO)

        second = jax.tree.map(average, state, factors)
        return jax.tree.map(direction, factors, second), second

    return optax.GradientTransformation(lambda params: jax.tree.map(_zeros_L1O, params), update)


def _zeros_L1O(w_LIO: Array) -> Array:
    return jnp.zeros_like(w_LIO[:, :1])
