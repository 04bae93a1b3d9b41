"""Checks of what predictions depend on: no later token, and no other document if those are masked."""

from __future__ import annotations

import numpy as np

from harness.core.errors import UserError
from harness.models.vetting.small_model import Executable, example_rows

TOLERANCE = 1e-4
"""Largest change of a logit that is rounding."""


def check_predictions(name: str, executable: Executable) -> None:
    """Raise UserError if the logits of a text model depend on later tokens, or on other documents although
    they are masked, or a loss is not finite. `name`: the nodes from outside."""
    rows_BR = example_rows(executable.model)
    loss_BT = executable(rows_BR).token_loss_BT
    if not np.isfinite(loss_BT).all():
        raise UserError(
            f"{name}: the loss is not finite before the first step. Look for a division by zero, or a softmax"
            " without a key to attend to."
        )
    length = loss_BT.shape[1]
    # No multiple of a common size of blocks, within which a leak stays.
    for token in sorted({max(1, round(share * length) | 1) for share in (0.2, 0.45, 0.7)} | {length - 2}):
        _check_later_tokens(name, executable, rows_BR, token)
    if executable.model.spec.end_token is not None:
        _check_other_documents(name, executable, rows_BR, length // 2 | 1)


def _check_later_tokens(name: str, executable: Executable, rows_BR: np.ndarray, last: int) -> None:
    """Change all tokens after a last one. The predictions up to it must stay."""
    if (token := _first_change(executable, rows_BR, slice(0, last + 1), slice(last + 1, None))) is not None:
        raise UserError(
            f"{name}: what is predicted from the tokens up to {token} changes when tokens after {last}"
            " change, so training sees what it must predict. Let a token depend on itself and earlier tokens"
            " only."
        )


def _check_other_documents(name: str, executable: Executable, rows_BR: np.ndarray, end: int) -> None:
    """Change all tokens of a first document. The predictions in the second must stay."""
    rows_BR = rows_BR.copy()
    rows_BR[:, end] = executable.model.spec.end_token
    if (token := _first_change(executable, rows_BR, slice(end + 1, None), slice(0, end))) is not None:
        raise UserError(
            f"{name}: what is predicted after token {token} changes when a document before its own changes,"
            " but data.mask_documents=true. Ask for document_BT (or rotary.document_BT) and mask what"
            " differs, or set data.mask_documents=false."
        )


def _first_change(
    executable: Executable, rows_BR: np.ndarray, predictions: slice, changed: slice
) -> int | None:
    """Return the first of these positions whose logits change when tokens of the last row do; None if none
    does. The last row alone, because what a layer with experts drops may depend on the rows before. Logits,
    because a loss changes with its token even if nothing looks at it too early."""
    other_BR = rows_BR.copy()
    other_BR[-1, changed] = example_rows(executable.model, seed=1)[-1, changed]
    before_BTV, after_BTV = (executable(rows).logits_BTV for rows in (rows_BR, other_BR))
    difference_T = np.max(np.abs(after_BTV[-1] - before_BTV[-1]), axis=-1)[predictions]
    changes = np.flatnonzero(~(difference_T <= TOLERANCE))
    return int(changes[0]) + predictions.start if len(changes) else None
