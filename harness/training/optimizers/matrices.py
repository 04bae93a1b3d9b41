"""Hidden matrices of a model: which parameters they are, their shapes in a product, one slice per layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import jax
from jax import Array, P
from jaxtyping import Float

from harness.models import Model
from harness.models.mup import WIDTH_SCALED_AXES
from harness.models.parameters import ParamSpec, expert_matrix, num_contracted_axes


@dataclass(frozen=True)
class Matrix:
    """Shape of a hidden matrix as the product uses it, x_NI @ weight_IO. The stored array may have more
    axes, or a slice per layer or expert."""

    rows: int
    columns: int
    rate: float
    """Factor of the learning rate at this width for an orthogonal update at the size of Adam's
    (`optimizers.muon`); 1 at the base size."""

    def times(self, factor: float) -> Matrix:
        """Return the matrix with its learning rate times a factor."""
        return replace(self, rate=factor * self.rate)


Matrices = Mapping[str, Matrix]
"""Hidden matrices by stored path."""


def hidden_matrices(model: Model) -> dict[str, Matrix]:
    """Return the matrices that stand between activations: all except those with a vocabulary axis."""
    growth, scaling = model.spec.growth, model.spec.scaling
    layer_paths = {path: model.stacking.canonical_paths(path)[0] for path in model.stored_specs}
    specs = {path: expert_matrix(model.param_specs[layer]) for path, layer in layer_paths.items()}
    return {
        path: as_matrix(spec, num_contracted_axes(spec), growth.width).times(
            scaling.scale(layer_paths[path], spec, replace(growth, width=1.0)).rate
        )
        for path, spec in specs.items()
        if spec.is_weight and len(spec.shape) > 1 and "vocabulary" not in spec.axes
    }


def as_matrix(spec: ParamSpec, contracted: int, relative: float) -> Matrix:
    """Return a weight of one layer as a matrix. `relative`: width over base width."""
    rows, columns = math.prod(spec.shape[:contracted]), math.prod(spec.shape[contracted:])
    grown_in, grown_out = (
        # Key-value heads do not grow: their number is a mechanism option, the same at every width.
        relative if any(axis in WIDTH_SCALED_AXES and axis != "kv_heads" for axis in axes) else 1.0
        for axes in (spec.axes[:contracted], spec.axes[contracted:])
    )
    longest, longest_at_base = max(rows, columns), max(rows / grown_in, columns / grown_out)
    return Matrix(rows, columns, math.sqrt(grown_out / grown_in * longest_at_base / longest))


def as_slices(stored: Array, matrix: Matrix) -> Float[Array, "L I O"]:
    """Return one matrix per layer and expert, replicated on every device."""
    return _reshard(stored, P(*[None] * stored.ndim)).reshape(-1, matrix.rows, matrix.columns)


def as_stored(x_LIO: Float[Array, "L I O"], stored: Array) -> Array:
    """Return slices in the shape and sharding of the array that they were taken from."""
    return _reshard(x_LIO.reshape(stored.shape), jax.typeof(stored).sharding.spec)


def _reshard(x: Array, spec: P) -> Array:
    return x if jax.sharding.get_abstract_mesh().empty else jax.reshard(x, spec)
