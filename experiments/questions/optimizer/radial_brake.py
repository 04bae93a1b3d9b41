"""Radial brake: the part of an update that makes the matrix longer is multiplied by a half."""

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
    outward: float = 0.5


@register_optimizer("radial_brake", Options)
def radial_brake(parameters, options, learning_rate):
    def direction(m_LIO, w_LIO):
        u_LIO = adam_sized(orthogonal_factor(m_LIO, options.ns_steps))
        square_L11 = jnp.sum(jnp.square(w_LIO), axis=(1, 2), keepdims=True) + 1e-12
        along_L11 = jnp.sum(u_LIO * w_LIO, axis=(1, 2), keepdims=True) / square_L11
        outward_L11 = jnp.minimum(along_L11, 0)  # updates are subtracted
        return u_LIO - (1 - options.outward) * outward_L11 * w_LIO

    return muon_like(parameters, options, learning_rate, each_matrix(direction, with_params=True))
