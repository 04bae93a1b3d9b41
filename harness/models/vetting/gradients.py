"""Check that every parameter learns."""

from __future__ import annotations

import re

import jax
import numpy as np
from jax import Array

from harness.core.errors import UserError
from harness.models.model_api import Params
from harness.models.vetting.small_model import (
    Executable,
    abstract_params,
    abstract_rows,
    example_rows,
    losses,
)


def check_gradients(name: str, executable: Executable) -> None:
    """Raise UserError for a parameter that no gradient reaches in any layer, unless it changes after a step
    without one. `name`: the nodes from outside."""
    gradients = executable(example_rows(executable.model)).gradients
    not_finite = [path for path, gradient in gradients.items() if not np.isfinite(gradient).all()]
    if not_finite:
        raise UserError(
            f"{name}: the gradient of {not_finite[0]} is not finite before the first step. Look for a square"
            " root or a division at zero; jnp.where does not stop the gradient of what it discards."
        )
    learning_paths = {_any_layer(path) for path, gradient in gradients.items() if gradient.any()}
    learning_paths |= {_any_layer(path) for path in _changed_after_step(executable)}
    if idle := [path for path in gradients if _any_layer(path) not in learning_paths]:
        suffix = f" (and {len(idle) - 1} more)" if len(idle) > 1 else ""
        raise UserError(
            f"{name}: no gradient reaches the parameter {idle[0]}{suffix}. Let the loss depend on it, or do"
            " not declare it; a fixed array is no parameter."
        )


def _any_layer(path: str) -> str:
    """Return a path without the index of its layer: a layer may leave out what suffix use, such as the first
    one what earlier layers give."""
    return re.sub(r"^(layers)\.\d+\.", r"\1.*.", path)


def _changed_after_step(executable: Executable) -> set[str]:
    """Return the canonical paths of the parameters that change after a step without a gradient."""
    model = executable.model
    changed: list[str] = []

    def after_step(params: Params, rows_BR: Array) -> Params:
        after = model.update_after_step(params, losses(model, params, rows_BR)[1].signals)
        changed.extend(path for path in params if after[path] is not params[path])
        return after

    jax.eval_shape(after_step, abstract_params(model), abstract_rows(model))
    return {canonical for path in changed for canonical in model.stacking.canonical_paths(path)}
