"""Muon with twelve steps of a quintic that ends at singular values of one."""

import jax.numpy as jnp

from harness.extend import MuonOptions, adam_sized, muon_like, register_optimizer

COEFFICIENTS = ((2.0, -1.5, 0.5),) * 12
"""a, b, c of each step X -> a X + (b A + c A^2) X, A = X X'."""


def polar(m_LIO):
    is_tall = m_LIO.shape[1] > m_LIO.shape[2]
    x_LIO = m_LIO.swapaxes(1, 2) if is_tall else m_LIO
    x_LIO = x_LIO / (1.0 * jnp.sqrt(jnp.sum(jnp.square(x_LIO), axis=(1, 2), keepdims=True)) + 1e-7)
    for a, b, c in COEFFICIENTS:
        gram_LII = jnp.einsum("lio,ljo->lij", x_LIO, x_LIO)
        x_LIO = a * x_LIO + (b * gram_LII + c * gram_LII @ gram_LII) @ x_LIO
    return x_LIO.swapaxes(1, 2) if is_tall else x_LIO


@register_optimizer("converged_muon", MuonOptions)
def converged_muon(parameters, options, learning_rate):
    return muon_like(parameters, options, learning_rate, lambda m_LIO: adam_sized(polar(m_LIO)))
