"""Check of what comes from outside on the mesh of a run: its types, on no device.

JAX carries the layout of an array in its type, and refuses an operation that would need a transfer that
nobody named. So losses and gradients that can be traced are those of one device but for the order of sums,
except inside a `shard_map`, where each device does what it is told.
"""

from __future__ import annotations

import jax
from jax.sharding import AbstractMesh

from harness.core.errors import UserError
from harness.models.model_api import Model
from harness.models.vetting.outside import named, outside_nodes
from harness.models.vetting.small_model import losses
from harness.parallel.sharding.axis_rules import batch_sharding, param_shardings

MAX_REASON = 200
"""Maximum letters of an error of JAX in a message."""


def check_on_mesh(model: Model, mesh: AbstractMesh, sequences: int) -> None:
    """Raise UserError if a model with parts from outside has losses or gradients of this many sequences that
    cannot be traced over the mesh. One device needs no layout."""
    nodes = outside_nodes(model.spec)
    if not nodes or mesh.size == 1:
        return
    shardings, row_sharding = param_shardings(mesh, model.stored_specs), batch_sharding(mesh, sequences)
    params = {
        path: jax.ShapeDtypeStruct(spec.shape, "float32", sharding=shardings[path])
        for path, spec in model.stored_specs.items()
    }
    rows = jax.ShapeDtypeStruct((sequences, model.row_length), "int32", sharding=row_sharding)
    gradient = jax.grad(lambda params, rows: losses(model, params, rows), has_aux=True)
    try:
        with jax.sharding.use_abstract_mesh(mesh):
            jax.eval_shape(gradient, params, rows)
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:MAX_REASON]
        raise UserError(
            f"{named(nodes)} cannot be traced over the {mesh.size} devices of this run"
            f" ({type(error).__name__}: {reason}). Multiply by weights with `project`, give other operations"
            " their out_sharding, or train on one device."
        ) from error
