"""A trained model that an objective reads: a teacher, or a reference for its own loss."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from harness.core.errors import UserError
from harness.models import TextModel
from harness.records.run.find_checkpoint import find_checkpoint
from harness.training.parent_checkpoint import rebuild_checkpoint_model
from harness.training.parent_weights import load_weights

MAX_PARAMETERS = 50_000_000
"""Largest reference: its weights are constants of the program, on every device."""


@dataclass(frozen=True, eq=False)
class ReferenceModel:
    """A checkpoint's model and weights. They are not trained, saved or counted as parameters."""

    model: TextModel
    params: dict[str, np.ndarray]

    def logits(self, tokens_BT: Int[Array, "B T"]) -> Float[Array, "B T V"]:
        """Return the float32 logits of each next token; no gradient passes."""
        params = {path: jnp.asarray(array) for path, array in self.params.items()}
        return jax.lax.stop_gradient(self.model.logits(params, tokens_BT))


@functools.lru_cache(maxsize=4)
def open_reference(checkpoint: str, key: str) -> ReferenceModel:
    """Open a checkpoint, RUN or RUN@STEP, of a text model; `key` is the config key that names it. Raises
    UserError if there is none, or if it is too large."""
    try:
        found = find_checkpoint(checkpoint)
    except UserError as error:
        raise UserError(f"{key}={checkpoint}: {error}. Give the directory of a trained run.") from error
    model = rebuild_checkpoint_model(found)
    if not isinstance(model, TextModel) or model.parameters > MAX_PARAMETERS:
        raise UserError(
            f"{key}={checkpoint} has {model.parameters:,} parameters. Give a text model of at most"
            f" {MAX_PARAMETERS:,}."
        )
    reference = model.with_reference_kernels()
    return ReferenceModel(reference, load_weights(found.run, found.step, found.config, reference))
