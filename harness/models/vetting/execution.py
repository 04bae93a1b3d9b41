"""Check that a model computes the same, however its layers and its batch are executed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from harness.config.schema.run import ComputeConfig, Remat
from harness.core.errors import UserError
from harness.models.vetting.small_model import UNROLLED, Executable, Outputs, example_rows

TOLERANCE = 2e-3
"""Largest difference in an array, relative to its largest value, that is rounding."""

REMEDIES = {
    "scan_layers=true": "Let layers differ by their parameters alone, or register their pattern as `period`.",
    "remat=full": "Layers are computed twice: let them keep no state.",
}


def check_execution(name: str, executable: Executable, microbatches: int) -> None:
    """Raise UserError if losses or gradients change when layers are scanned, when they are computed again in
    the backward pass, or, in a run with several micro-batches, when the batch is split. `name`: the nodes
    from outside."""
    spec = executable.model.spec
    plain = executable(example_rows(executable.model))
    scans = spec.scan_obstacle is None and spec.shape.layers >= 2 * spec.period
    scan_and_remat = ComputeConfig(scan_layers=scans, remat=Remat.full)
    if _difference(executable, scan_and_remat, plain):
        single_ways = {
            "remat=full": replace(UNROLLED, remat=Remat.full),
            "scan_layers=true": replace(scan_and_remat, remat=Remat.none),
        }
        for key, compute in single_ways.items():
            if reason := _difference(executable, compute, plain):
                raise UserError(f"{name}: with compute.{key} {reason}. {REMEDIES[key]}")
        raise UserError(
            f"{name}: a scan over layers that are computed again in the backward pass has other gradients."
            f" {REMEDIES['remat=full']}"
        )
    if microbatches > 1 and not executable.model.asks_clock:  # else each row has random numbers of its own
        _check_microbatches(name, executable, plain, microbatches)


def _difference(executable: Executable, compute: ComputeConfig, plain: Outputs) -> str:
    """Return what is not as in the plain execution, in words; "" if all is."""
    model = type(executable.model).assemble(executable.model.spec, compute)
    try:
        outputs = replace(executable, model=model)(example_rows(model))
    except Exception as error:  # whatever JAX raises about what others wrote
        return f"it cannot be traced ({type(error).__name__}: {str(error).splitlines()[0]})"
    return _first_difference(plain, outputs)


def _check_microbatches(name: str, executable: Executable, plain: Outputs, microbatches: int) -> None:
    """Compare the gradient of a batch with the mean over its rows, each one with itself as the other row: the
    program keeps its shape, and a mean over sequences its value."""
    rows_BR = example_rows(executable.model)
    parts = [executable(np.repeat(row_R[None], len(rows_BR), 0)) for row_R in rows_BR]
    gradients = {path: np.mean([part.gradients[path] for part in parts], 0) for path in plain.gradients}
    mean = Outputs(
        np.concatenate([part.token_loss_BT[:1] for part in parts]),
        float(np.mean([part.loss for part in parts])),
        gradients,
        plain.logits_BTV,
    )
    if reason := _first_difference(plain, mean):
        raise UserError(
            f"{name}: with compute.microbatches={microbatches} {reason}, as a term of the loss is no mean"
            " over sequences. Average it over sequences, or set compute.microbatches=1."
        )


def _first_difference(plain: Outputs, outputs: Outputs) -> str:
    if not _is_close(plain.token_loss_BT, outputs.token_loss_BT) or not _is_close(plain.loss, outputs.loss):
        return f"the loss is {outputs.loss:.5g}, not {plain.loss:.5g}"
    for path, gradient in plain.gradients.items():
        if not _is_close(gradient, outputs.gradients[path]):
            return f"the gradient of {path} differs"
    return ""


def _is_close(expected: np.ndarray | float, actual: np.ndarray | float) -> bool:
    scale = np.max(np.abs(expected)) + 1e-6
    return bool(np.max(np.abs(np.subtract(expected, actual))) <= TOLERANCE * scale)
