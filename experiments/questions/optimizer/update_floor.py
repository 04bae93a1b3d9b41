"""Floor of the update: the norm of an orthogonal update is at least a share of that of its matrix."""

from dataclasses import dataclass

import jax.numpy as jnp

from harness.extend import (
    MuonOptions,
    adam_sized,
    each_matrix,
    muon_like,
    orthogonal_factor,
    register_optimizer,
)


@dataclass(frozen=True)
class Options(MuonOptions):
    share: float = 0.35


def norm(x_LIO):
    return jnp.sqrt(jnp.sum(jnp.square(x_LIO), axis=(1, 2), keepdims=True))


@register_optimizer("update_floor", Options)
def update_floor(parameters, options, learning_rate):
    def direction(m_LIO, w_LIO):
        u_LIO = adam_sized(orthogonal_factor(m_LIO, options.ns_steps))
        return u_LIO * jnp.maximum(1, options.share * norm(w_LIO) / (norm(u_LIO) + 1e-12))

    return muon_like(parameters, options, learning_rate, each_matrix(direction, with_params=True))
