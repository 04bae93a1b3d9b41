"""Aurora: tall matrices are orthogonalised with rows of equal norm, and their rows are balanced again."""

import jax.numpy as jnp

from harness.extend import MuonOptions, adam_sized, muon_like, orthogonal_factor, register_optimizer

ROUNDS = 2


def balanced(m_LIO, steps):
    wide = m_LIO.shape[1] < m_LIO.shape[2]
    x_LIO = m_LIO.swapaxes(1, 2) if wide else m_LIO  # the longer side first
    scale_LI1 = 1 / (jnp.linalg.norm(x_LIO, axis=2, keepdims=True) + 1e-12)
    u_LIO = orthogonal_factor(scale_LI1 * x_LIO, steps)
    share = u_LIO.shape[2] / u_LIO.shape[1]
    for _ in range(ROUNDS):
        square_LI1 = jnp.sum(jnp.square(u_LIO), axis=2, keepdims=True) + 1e-12
        scale_LI1 = scale_LI1 * (share / square_LI1) ** 0.25
        u_LIO = orthogonal_factor(scale_LI1 * x_LIO, steps)
    return u_LIO.swapaxes(1, 2) if wide else u_LIO


@register_optimizer("aurora", MuonOptions)
def aurora(parameters, options, learning_rate):
    return muon_like(
        parameters, options, learning_rate, lambda m_LIO: adam_sized(balanced(m_LIO, options.ns_steps))
    )
