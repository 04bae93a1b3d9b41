"""NorMuon: Muon with one second moment for each neuron (arXiv:2510.05491, algorithm 1).

    o = orthogonal factor of the momentum;  v = b2 v + (1 - b2) mean over inputs of o^2, for each output
    u = o / (sqrt(v) + epsilon), brought to root mean square 0.2

The momentum is Muon's here, with Nesterov's step. All other parameters are Adam's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from harness.training.optimizers.muon import MuonOptions, orthogonal_factor
from harness.training.optimizers.muon_like import adam_sized, muon_like
from harness.training.optimizers.optimizer_registry import register_optimizer
from harness.training.optimizers.parameter_group import ParameterGroup


@dataclass(frozen=True)
class NorMuonOptions(MuonOptions):
    """Muon's options, and the decay of the neurons' second moment."""

    neuron_decay: float = 0.95


@register_optimizer("normuon", NorMuonOptions)
def normuon(
    parameters: ParameterGroup, options: NorMuonOptions, learning_rate: Any
) -> optax.GradientTransformation:
    """Build NorMuon for hidden matrices, and AdamW for the rest."""
    return muon_like(parameters, options, learning_rate, scale_neurons(options))


def scale_neurons(options: NorMuonOptions) -> optax.GradientTransformation:
    """Return the transformation from the momentum of matrices [L, I, O] to their directions."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        factors = jax.tree.map(lambda m_LIO: orthogonal_factor(m_LIO, options.ns_steps), updates)

        def average(v_L1O: Array, o_LIO: Array) -> Array:
            mean_L1O = jnp.mean(jnp.square(o_LIO), axis=1, keepdims=True)
            return options.neuron_decay * v_L1O + (1 - options.neuron_decay) * mean_L1O

        def direction(o_LIO: Array, v_L1O: Array) -> Array:
            return adam_sized(o_LIO / (jnp.sqrt(v_L1O) + options.epsilon))

        second = jax.tree.map(average, state, factors)
        return jax.tree.map(direction, factors, second), second

    return optax.GradientTransformation(lambda params: jax.tree.map(_zeros_L1O, params), update)


def _zeros_L1O(w_LIO: Array) -> Array:
    return jnp.zeros_like(w_LIO[:, :1])
