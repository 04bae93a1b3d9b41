"""Sizes of Muon's update: by the shape of the matrix."""

from dataclasses import dataclass
from typing import Literal

from harness.extend import MuonOptions, muon_like, orthogonal_factor, register_optimizer


@dataclass(frozen=True)
class Options(MuonOptions):
    size: Literal["tall", "adam", "spectral"] = "tall"


def factor(size, rows, columns):
    if size == "adam":
        return 0.2 * max(rows, columns) ** 0.5
    ratio = columns / rows
    return max(1.0, ratio) ** 0.5 if size == "tall" else ratio**0.5


@register_optimizer("update_size", Options)
def update_size(parameters, options, learning_rate):
    def direction(m_LIO):
        return factor(options.size, *m_LIO.shape[1:]) * orthogonal_factor(m_LIO, options.ns_steps)

    return muon_like(parameters, options, learning_rate, direction)
