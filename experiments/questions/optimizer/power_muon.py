"""DynMuon: the update's singular values are those of the momentum to a power that falls over the run."""

from dataclasses import dataclass

import jax.numpy as jnp

from harness.extend import MuonOptions, adam_sized, muon_like, register_optimizer


@dataclass(frozen=True)
class Options(MuonOptions):
    first: float = 0.25
    last: float = -0.25


@register_optimizer("power_muon", Options)
def power_muon(parameters, options, learning_rate, progress):
    power = options.first + (options.last - options.first) * progress

    def direction(m_LIO):
        left_LIR, values_LR, right_LRO = jnp.linalg.svd(m_LIO, full_matrices=False)
        relative_LR = values_LR / (values_LR[:, :1] + 1e-12) + 1e-3
        return adam_sized((left_LIR * relative_LR[:, None] ** power) @ right_LRO)

    return muon_like(parameters, options, learning_rate, direction)
