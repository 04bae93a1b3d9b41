"""Transformations for hidden matrices: one of their own, and one that sees each as a plain stack."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, cast

import optax

from harness.core.errors import UserError
from harness.training.optimizers.matrices import as_slices, as_stored
from harness.training.optimizers.parameter_group import ParameterGroup


def partition(
    parameters: ParameterGroup,
    *,
    matrices: optax.GradientTransformation,
    others: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Return `matrices` for the hidden matrices, and `others` for all other parameters. Raises UserError if
    there is no hidden matrix."""
    _check(parameters)
    parts: dict[Hashable, optax.GradientTransformation] = {"matrix": matrices, "other": others}
    labels = {path: "matrix" if path in parameters.matrices else "other" for path in parameters.specs}
    return optax.partition(parts, labels)


def per_matrix(
    parameters: ParameterGroup, transformation: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """Return a transformation that is given hidden matrices alone, as dicts of float32 [L, I, O]: one slice
    for each layer and expert, whole on every device. So is its state. All other parameters pass unchanged."""
    _check(parameters)
    inner = optax.with_extra_args_support(transformation)

    def slices(tree: Mapping[str, Any] | None) -> Any:
        return tree and {path: as_slices(tree[path], matrix) for path, matrix in parameters.matrices.items()}

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        results = inner.update(slices(updates), state, slices(params), **extra)
        changed, state = cast(tuple[Mapping[str, Any], Any], results)
        stored = {path: as_stored(x_LIO, updates[path]) for path, x_LIO in changed.items()}
        return {**updates, **stored}, state

    return optax.GradientTransformationExtraArgs(lambda params: inner.init(slices(params)), update)


def _check(parameters: ParameterGroup) -> None:
    if not parameters.matrices:
        raise UserError(
            "optimizer.name: this optimizer is for hidden matrices, and it is given none. Choose"
            " optimizer=adamw, or other optimizer.groups."
        )
