"""Check that an objective does not show the model what it must predict.

A stand-in for the decoder answers what it was shown: all tokens up to a position get one logit, all others
another. No token of a row comes twice, so an honest objective is larger for a stand-in that prefers what it
was shown than for one that avoids it. An objective that shows a token before it asks for it is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from harness.core.errors import UserError
from harness.models.model_api import Params
from harness.models.sockets.entries import OBJECTIVE_ARGUMENTS
from harness.models.sockets.side_inputs import SideInputs, asked_names
from harness.models.text.objective import Forward, Pass
from harness.models.text.text_model import TextModel
from harness.models.vetting.small_model import (
    CLOCK,
    SEQUENCES,
    abstract_params,
    compile_quickly,
    perturbed_params,
)

PREFERENCE = 30.0
"""Logit of the tokens that a stand-in prefers, over that of all others."""


@dataclass
class StandInForward(Forward):
    """A decoder whose logits say which tokens it was shown so far."""

    prefers_seen: Array | bool = True

    def __call__(self, tokens_BT: Array, **given_arrays: Array) -> Pass:
        """Prefer what was shown up to each position, or all else."""
        answer = super().__call__(tokens_BT, **given_arrays)
        is_seen_BTV = jnp.cumsum(jax.nn.one_hot(tokens_BT, answer.logits_BTV.shape[-1]), 1) > 0
        return answer._replace(logits_BTV=PREFERENCE * (is_seen_BTV == self.prefers_seen))


def check_objective(name: str, model: TextModel) -> None:
    """Raise UserError if an objective of one's own is smaller for a model that repeats what it was shown.
    `name` is its node in the config, `model` the small one."""
    params, vocabulary = model.stack(perturbed_params(model)), model.shape.vocabulary
    generator, tokens = np.random.default_rng(0), min(model.row_length, vocabulary)
    rows = [generator.permutation(vocabulary)[:tokens] for _ in range(SEQUENCES)]
    compute = jax.jit(partial(_stand_in_losses, model))
    abstract_rows = jax.ShapeDtypeStruct((SEQUENCES, tokens), jnp.int32)
    compiled = compile_quickly(compute.lower(abstract_params(model), abstract_rows, True))
    repeating, avoiding = (compiled(params, np.stack(rows).astype(np.int32), flag) for flag in (True, False))
    for method, of_seen, of_unseen in zip(("", ".judge"), repeating, avoiding, strict=False):
        if of_seen < of_unseen - PREFERENCE / 10:
            raise UserError(
                f"{name}{method} is {of_seen:.3g} for a model that repeats the tokens that it was shown, and"
                f" {of_unseen:.3g} for one that avoids them, so it looks at the future. Compare the logits of"
                " a position with a token that forward() was not given up to there."
            )


def _stand_in_losses(model: TextModel, params: Params, rows_BT1: Array, prefers_seen: Array) -> list[Array]:
    """Return what is minimised, and the mean of what the run is judged by if the objective says so."""
    clock, decoder = CLOCK if model.asks_clock else None, cast(Any, model.module(params))
    requests = asked_names(type(decoder.objective).__call__, OBJECTIVE_ARGUMENTS)
    answers = SideInputs(decoder.rotary(1), clock=clock).answers(requests, 0, 5)
    losses = [decoder.objective(StandInForward(decoder, clock, prefers_seen), rows_BT1, **answers).minimised]
    if model.loss_is_bound:
        judged_BT = decoder.objective.judge(StandInForward(decoder, None, prefers_seen), rows_BT1)
        losses.append(jnp.mean(judged_BT))
    return losses
