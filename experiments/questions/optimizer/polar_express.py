"""Newton-Schulz by other coefficients: Polar Express (arXiv:2505.16932), or twelve steps that converge."""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp

from harness.extend import MuonOptions, adam_sized, muon_like, register_optimizer

POLAR_EXPRESS = (
    (8.157, -22.483, 15.879),
    (4.043, -2.809, 0.5),
    (3.892, -2.772, 0.506),
    (3.286, -2.368, 0.464),
    (2.347, -1.710, 0.423),
)
CONVERGED = ((2.0, -1.5, 0.5),) * 12
"""a, b, c of each step X -> a X + (b A + c A^2) X, A = X X'."""


@dataclass(frozen=True)
class Options(MuonOptions):
    coefficients: Literal["polar_express", "converged"] = "polar_express"


def polar(m_LIO, coefficients):
    is_tall = m_LIO.shape[1] > m_LIO.shape[2]
    x_LIO = m_LIO.swapaxes(1, 2) if is_tall else m_LIO
    x_LIO = x_LIO / (1.02 * jnp.sqrt(jnp.sum(jnp.square(x_LIO), axis=(1, 2), keepdims=True)) + 1e-7)
    for a, b, c in coefficients:
        gram_LII = jnp.einsum("lio,ljo->lij", x_LIO, x_LIO)
        x_LIO = a * x_LIO + (b * gram_LII + c * gram_LII @ gram_LII) @ x_LIO
    return x_LIO.swapaxes(1, 2) if is_tall else x_LIO


@register_optimizer("polar_express", Options)
def polar_express(parameters, options, learning_rate):
    steps = POLAR_EXPRESS if options.coefficients == "polar_express" else CONVERGED
    return muon_like(parameters, options, learning_rate, lambda m_LIO: adam_sized(polar(m_LIO, steps)))
