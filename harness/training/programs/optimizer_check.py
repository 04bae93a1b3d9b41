"""Check of an optimizer before anything is trained: its step is traced on the mesh of the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core

from harness.core.errors import UserError
from harness.training.optimizers.rounding.stored_dtypes import widen
from harness.training.optimizers.run_optimizer import RunOptimizer
from harness.training.programs.program_specs import ProgramSpecs
from harness.training.step_inputs import StepInputs

MAX_REASON = 200
"""Maximum letters of an error of JAX in a message."""


def check_optimizer(specs: ProgramSpecs) -> None:
    """Raise UserError unless a step of the optimizer can be traced over the mesh: with updates, and what is
    judged, like the parameters, a state like the one before, and none of the learning rate in the first."""
    node = f"optimizer.name={specs.config.optimizer.name}"
    inputs = specs.step_arguments[2]
    try:
        with specs.mesh_context():
            results = jax.eval_shape(_one_step(specs.optimizer), *_arguments(specs), inputs)
            starts = jax.make_jaxpr(_first_state(specs.optimizer))(
                inputs.learning_rate, specs.trainable_params
            )
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:MAX_REASON]
        raise UserError(
            f"{node} cannot be traced over the mesh of this run ({type(error).__name__}: {reason}). Write it"
            " with `per_matrix`, which hands out whole matrices, or choose another."
        ) from error
    for (name, result), expected in zip(results.items(), _expected(specs), strict=True):
        if fault := _first_difference(expected, result):
            raise UserError(
                f"{node}: {name} has another form than before ({fault}). Keep shape, dtype and layout."
            )
    if _reaches_output(starts.jaxpr):
        raise UserError(
            f"{node} has the learning rate in its first state, which is made before there is one. Choose"
            " another."
        )


def _arguments(specs: ProgramSpecs) -> tuple[Any, Any]:
    return specs.trainable_params, specs.state.optimizer


def _expected(specs: ProgramSpecs) -> tuple[Any, Any, Any]:
    """Return the forms of what `_one_step` returns. Parameters are updated in float32."""
    wide = jax.eval_shape(widen, specs.trainable_params)
    return wide, specs.state.optimizer, specs.trainable_params


def _one_step(optimizer: RunOptimizer) -> Callable[[Any, Any, StepInputs], dict[str, Any]]:
    def step(params: Any, state: Any, inputs: StepInputs) -> dict[str, Any]:
        descent = optimizer.at_step(inputs)
        point = descent.at(params, state) if descent.at else params
        updates, new_state = descent.update(widen(point), state, widen(params), value=inputs.learning_rate)
        readout = descent.judged(params, state) if descent.judged else params
        return {"an update": updates, "its state": new_state, "what is judged": readout}

    return step


def _first_state(optimizer: RunOptimizer) -> Callable[[Any, Any], Any]:
    return lambda rate, params: optimizer.at_step(StepInputs(rate)).init(params)


def _first_difference(expected: Any, result: Any) -> str:
    """Return the first leaf whose form differs; '' if there is none."""
    before, after = (dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (expected, result))
    for path in [*before, *after]:
        old, new = (_form(leaves[path]) if path in leaves else "none" for leaves in (before, after))
        if old != new:
            return f"{jax.tree_util.keystr(path)}: {old} became {new}"
    return ""


def _form(leaf: Any) -> str:
    """Return dtype, shape and layout."""
    spec = [*(getattr(leaf.sharding, "spec", None) or ())]
    while spec and spec[-1] is None:
        spec.pop()
    return f"{leaf.dtype}{[*leaf.shape]}{f' over {spec}' if spec else ''}"


def _reaches_output(jaxpr: core.Jaxpr) -> bool:
    """Return whether the first input has a part in any output."""
    dependent = {jaxpr.invars[0]}
    for equation in jaxpr.eqns:
        if any(isinstance(variable, core.Var) and variable in dependent for variable in equation.invars):
            dependent.update(equation.outvars)
    return any(isinstance(variable, core.Var) and variable in dependent for variable in jaxpr.outvars)
