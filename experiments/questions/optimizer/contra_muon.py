"""Contra-Muon: a little of the momentum itself is taken off its orthogonal factor, until 70 % of the run."""

from dataclasses import dataclass

import jax.numpy as jnp

from harness.extend import MuonOptions, adam_sized, muon_like, orthogonal_factor, register_optimizer


@dataclass(frozen=True)
class Options(MuonOptions):
    share: float = 0.1
    end: float = 0.7


@register_optimizer("contra_muon", Options)
def contra_muon(parameters, options, learning_rate, progress):
    share = options.share * jnp.maximum(0, 1 - progress / options.end)

    def direction(m_LIO):
        largest_L = jnp.linalg.norm(m_LIO, ord=2, axis=(1, 2)) + 1e-12
        u_LIO = orthogonal_factor(m_LIO, options.ns_steps) - share * m_LIO / largest_L[:, None, None]
        return adam_sized(u_LIO)

    return muon_like(parameters, options, learning_rate, direction)
