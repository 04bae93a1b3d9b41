"""All checks of a model with parts from outside the package, in seconds and before anything is trained."""

from __future__ import annotations

from typing import Any

from harness.core.errors import UserError
from harness.models.model_api import Model
from harness.models.text.text_model import TextModel
from harness.models.vetting.execution import check_execution
from harness.models.vetting.gradients import check_gradients
from harness.models.vetting.later_tokens import check_predictions
from harness.models.vetting.layer_parts import check_layer_parts
from harness.models.vetting.objectives import check_objective
from harness.models.vetting.off_switch import check_off_switch
from harness.models.vetting.outside import named, outside_nodes
from harness.models.vetting.small_model import Executable, perturbed_params, small_model


def vet(model: Model) -> None:
    """Raise UserError if a part from outside the package does not keep its word.

    FLOPs, later tokens and other documents are checked for each attention and feed-forward layer at its own
    size. Then the whole model is executed at a small size with the same parts: no loss may depend on later
    tokens or other documents, every parameter must learn, and a scan, rematerialisation and micro-batches
    must change nothing. Runs that differ in size alone share these checks.
    """
    nodes = outside_nodes(model.spec)
    if not nodes:
        return
    check_layer_parts(model.spec)
    name = named(nodes)
    try:
        small = small_model(model)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{name}: the model cannot be traced ({type(error).__name__}: {error}).") from error
    if small is None:
        return
    identity = (repr(small.spec), model.compute.microbatches, *(node.entry for node in nodes.values()))
    if identity not in _CHECKED:
        _check_small_model(name, small, model.compute.microbatches)
        for key, node in nodes.items():
            check_off_switch(key, node, small)
        _CHECKED.add(identity)


_CHECKED: set[tuple[Any, ...]] = set()
"""Small models and entries that passed in this process."""


def _check_small_model(name: str, small: Model, microbatches: int) -> None:
    executable = Executable(small, perturbed_params(small))
    if isinstance(small, TextModel):
        if not small.loss_is_bound:  # a bound takes all tokens of a row together
            check_predictions(name, executable)
        if (objective := small.spec.configured_objective).name != "next_token":
            check_objective(f"objective.name={objective.name}", small)
    check_gradients(name, executable)
    check_execution(name, executable, microbatches)
