"""A finished run on one simulated CPU device: its weights at any saved step, and its predictions."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from harness.config.schema.run import Config
from harness.core.errors import UserError
from harness.core.jax_setup.cpu_flags import cpu_env
from harness.core.jax_setup.jax_variables import drop_jax_options
from harness.records.paths import RunDir
from harness.records.run.find_checkpoint import Checkpoint
from harness.records.sweep.trusted_modules import check_trusted

if TYPE_CHECKING:
    from harness.models import Model
    from harness.models.families.abilities import PredictsTokens

MAX_LOGITS_BYTES = 2**26
"""Maximum bytes of the float32 logits of one model at a time."""


@dataclass(frozen=True)
class ModelOutput:
    """Losses and logits of some sequences, on the host."""

    losses_N: Float[np.ndarray, " N"]
    """Mean cross-entropy of each sequence, in nats per token."""
    logits_NTV: Float[np.ndarray, "N T V"]


PredictFn = Callable[[Int[np.ndarray, "N T1"]], ModelOutput]
"""Function of tokens [N, T+1]."""


@dataclass(frozen=True)
class LoadedRun:
    """A run with its rebuilt model, ready to load weights and predict."""

    run: RunDir
    config: Config
    model: Model

    def stored_weights(self, step: int) -> dict[str, np.ndarray]:
        """Return the weights at a step, float32 on the host, by stored path."""
        from harness.training.parent_weights import load_weights

        return load_weights(self.run, step, self.config, self.model)

    def weights(self, step: int) -> dict[str, np.ndarray]:
        """Return the weights at a step by canonical path, one entry per layer, also if layers are stacked.
        Embedding and head have one row a token."""
        weights, vocabulary = self.model.unstack(self.stored_weights(step)), self.model.shape.vocabulary
        return weights | {path: weights[path][:vocabulary] for path in self.model.table_paths}

    @property
    def predicts_tokens(self) -> bool:
        """True if the model predicts each next token."""
        from harness.models.families.abilities import PredictsTokens

        return isinstance(self.model, PredictsTokens)

    @property
    def exports(self) -> bool:
        """True if other libraries have such models."""
        from harness.models.families.model_family import configured_family

        return configured_family(self.config).entry.exports

    @property
    def noun(self) -> str:
        """Words for the model in messages, such as `image model`."""
        from harness.models.families.model_family import configured_family

        return configured_family(self.config).entry.noun

    def predict_fn(self, step: int, rows: int) -> PredictFn:
        """Return the model at a step as a function of tokens [N, T+1], with N at most `rows`.

        Compiled once for `rows` sequences; fewer are padded with repeats. Raises UserError for other models.
        """
        import jax

        from harness.models.families.abilities import PredictsTokens

        if not isinstance(self.model, PredictsTokens):
            raise UserError(f"{self.run.path} is a run of a {self.noun}, which does not predict tokens.")
        program, params = jax.jit(_losses_and_logits(self.model)), jax.device_put(self.stored_weights(step))

        def predict(tokens_NT1: Int[np.ndarray, "N T1"]) -> ModelOutput:
            count = len(tokens_NT1)
            padded_NT1 = tokens_NT1[np.arange(rows) % count]
            losses_N, logits_NTV = (np.asarray(output)[:count] for output in program(params, padded_NT1))
            return ModelOutput(losses_N, logits_NTV)

        return predict


def prepare_process(*checkpoints: Checkpoint, trust: bool) -> None:
    """Simulate one CPU device unless JAX is imported; import users' modules if trusted. Raises UserError."""
    check_trusted(*checkpoints, trust=trust)
    if "jax" not in sys.modules:
        drop_jax_options()
        os.environ.update(cpu_env(1))
    from harness.models.registry import import_modules  # imports JAX

    for checkpoint in checkpoints:
        import_modules(checkpoint.config)


def load_run(checkpoint: Checkpoint) -> LoadedRun:
    """Load the run of a checkpoint. Raises UserError if this code builds another model than was trained."""
    from harness.training.parent_checkpoint import rebuild_checkpoint_model

    model = rebuild_checkpoint_model(checkpoint).with_reference_kernels()
    return LoadedRun(checkpoint.run, checkpoint.config, model)


def max_rows(vocabulary: int, length: int) -> int:
    """Return how many sequences fit into one batch, so that their logits fit MAX_LOGITS_BYTES."""
    return max(1, MAX_LOGITS_BYTES // (4 * length * vocabulary))


def _losses_and_logits(model: PredictsTokens) -> Callable:
    """Return the function (params, tokens [B, T+1]) -> mean loss [B], logits [B, T, V]; both float32."""
    import jax
    import jax.numpy as jnp

    def apply(params, tokens_BT1):
        logits_BTV = model.logits(params, tokens_BT1[:, :-1])
        target_BT1 = jnp.take_along_axis(logits_BTV, tokens_BT1[:, 1:, None], axis=-1)
        losses_BT = jax.nn.logsumexp(logits_BTV, axis=-1) - target_BT1[..., 0]
        return jnp.mean(losses_BT, axis=1), logits_BTV

    return apply
