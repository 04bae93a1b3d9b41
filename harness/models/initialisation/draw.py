"""Distributions of initial values: mean + deviation * z, where z has mean 0 and variance 1.

Values of `normal`, `uniform` and `truncated` are drawn in order, so that a part of a parameter can be drawn
without the rest (`models.parameters`). `orthogonal` and `pattern` need the whole parameter at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Distribution = Literal["normal", "uniform", "truncated", "orthogonal", "pattern"]

MAX_WHOLE = 2**26
"""Maximum values of a parameter that is drawn whole: 512 MiB in float64."""


@dataclass(frozen=True)
class Draw:
    """Initial values of one parameter. With `deviation` 0 they are all `mean`."""

    distribution: Distribution = "normal"
    deviation: float = 0.0
    """Standard deviation; of `truncated`, that before the cut; of `orthogonal`, the root mean square of each
    matrix, whose rows or columns, the shorter ones, are orthogonal and of equal length."""
    mean: float = 0.0
    cut: float = 3.0
    """Largest |z| of `truncated`."""
    pattern: Callable[[tuple[int, ...]], np.ndarray] | None = None
    """Function from a shape to z, for `pattern`."""

    @property
    def is_whole(self) -> bool:
        """True if the parameter can only be drawn whole."""
        return bool(self.deviation) and self.distribution in ("orthogonal", "pattern")

    def scaled(self, factor: float) -> Draw:
        """Return the draw of another deviation around the same mean."""
        return replace(self, deviation=factor * self.deviation)

    def fill(self, generator: np.random.Generator, out: np.ndarray, matrices: tuple[int, int, int]) -> None:
        """Write the next values of z into an array. `matrices`: number, rows and columns of the matrices that
        the parameter holds."""
        match self.distribution:
            case "normal":
                generator.standard_normal(out=out, dtype=np.float32)
            case "uniform":
                generator.random(out=out, dtype=np.float32)
                out[...] = math.sqrt(3) * (2 * out - 1)
            case "truncated":
                out[...] = _truncated(generator.random(out.shape), self.cut)
            case "orthogonal":
                out[...] = _orthogonal(generator, matrices).reshape(out.shape)
            case "pattern":
                assert self.pattern is not None, "checked by `initialisation.initialisation_registry`"
                out[...] = self.pattern(out.shape)


def _truncated(uniform: np.ndarray, cut: float) -> np.ndarray:
    """Return normal values between -cut and cut. One uniform number makes one value, whatever the others."""
    from scipy.special import ndtr, ndtri

    low = ndtr(-cut)
    return ndtri(low + uniform * (1 - 2 * low))


def _orthogonal(generator: np.random.Generator, matrices: tuple[int, int, int]) -> np.ndarray:
    """Return matrices [N, I, O] drawn evenly from those with orthogonal rows or columns (Haar), of root mean
    square 1."""
    number, rows, columns = matrices
    long, short = max(rows, columns), min(rows, columns)
    basis_NLS, upper_NSS = np.linalg.qr(generator.standard_normal((number, long, short)))
    # QR leaves signs open, and LAPACK chooses them unevenly.
    basis_NLS *= np.sign(np.diagonal(upper_NSS, axis1=1, axis2=2))[:, None, :] * math.sqrt(long)
    return basis_NLS if rows >= columns else basis_NLS.swapaxes(1, 2)
