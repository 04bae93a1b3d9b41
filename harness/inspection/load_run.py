"""A finished run on one simulated CPU device: its weights at any kept step, and what it answers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from harness.config.schema.run import Config
from harness.core.cpu_flags import cpu_env
from harness.core.errors import UserError
from harness.models.registry import import_modules
from harness.records.paths import RunDir
from harness.records.run.find_checkpoint import Checkpoint

if TYPE_CHECKING:
    from harness.models import Model, TextModel

MAX_LOGITS_BYTES = 2**26
"""How much of the logits of one model is held at a time."""


@dataclass(frozen=True)
class ModelOutput:
    """What a model says to some sequences, on the host."""

    losses_N: Float[np.ndarray, " N"]
    """Mean cross-entropy of each, nats a token."""
    logits_NTV: Float[np.ndarray, "N T V"]


PredictFn = Callable[[Int[np.ndarray, "N T1"]], ModelOutput]


@dataclass(frozen=True)
class LoadedRun:
    """A run that can be asked."""

    run: RunDir
    config: Config
    model: Model

    def stored_weights(self, step: int) -> dict[str, np.ndarray]:
        """The weights that the run computed with at a step, float32 on the host, by stored path."""
        from harness.training.parent_checkpoint import load_weights

        return load_weights(self.run, step, self.config, self.model)

    def weights(self, step: int) -> dict[str, np.ndarray]:
        """The same by canonical path, one entry a layer however layers are stored."""
        return self.model.unstack(self.stored_weights(step))

    def predict_fn(self, step: int, rows: int) -> PredictFn:
        """The model as of a step, as a function of tokens [N, T+1] with N up to `rows`.

        Compiled once, for `rows` sequences; fewer are filled up with repeats that are left out. Raises
        UserError for a model of images.
        """
        import jax

        from harness.models import TextModel

        if not isinstance(self.model, TextModel):
            raise UserError(f"{self.run.path} is a model of images, which says nothing of a next token")
        program, params = jax.jit(_losses_and_logits(self.model)), jax.device_put(self.stored_weights(step))

        def predict(tokens_NT1: Int[np.ndarray, "N T1"]) -> ModelOutput:
            count = len(tokens_NT1)
            filled = tokens_NT1[np.arange(rows) % count]
            losses, logits = (np.asarray(each)[:count] for each in program(params, filled))
            return ModelOutput(losses, logits)

        return predict


def prepare_process(*configs: Config) -> None:
    """One simulated CPU device, unless JAX is here already; then users' modules. Raises UserError."""
    if "jax" not in sys.modules:
        os.environ.update(cpu_env(1))
    for config in configs:
        import_modules(config)


def load_run(checkpoint: Checkpoint) -> LoadedRun:
    """The run of a checkpoint. Raises UserError where this code no longer builds what was trained."""
    from harness.training.parent_checkpoint import rebuild_checkpoint_model

    return LoadedRun(checkpoint.run, checkpoint.config, rebuild_checkpoint_model(checkpoint))


def max_rows(vocabulary: int, length: int) -> int:
    """How many sequences are asked at a time, so that their logits fit LOGITS_BYTES."""
    return max(1, MAX_LOGITS_BYTES // (4 * length * vocabulary))


def _losses_and_logits(model: TextModel) -> Callable:
    """(params, tokens [B, T+1]) -> mean loss of each sequence [B], logits [B, T, V]; both float32."""
    import jax
    import jax.numpy as jnp

    def apply(params, tokens_BT1):
        logits_BTV = model.logits(params, tokens_BT1[:, :-1])
        target_BT1 = jnp.take_along_axis(logits_BTV, tokens_BT1[:, 1:, None], axis=-1)
        losses_BT = jax.nn.logsumexp(logits_BTV, axis=-1) - target_BT1[..., 0]
        return jnp.mean(losses_BT, axis=1), logits_BTV

    return apply
