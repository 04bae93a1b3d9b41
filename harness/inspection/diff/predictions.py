"""Two models on the same held-out tokens: distributions on a frozen probe, losses by example."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.compare.checkpoints.diff_types import LossRow, PredictionDiff, PredictionRow
from harness.compare.checkpoints.distances import compare_tokens, loss_row, mean_over_domains, prediction_row
from harness.config.run_identity import config_difference
from harness.config.schema.run import DataKind
from harness.core.errors import UserError
from harness.core.hashing import is_covered_by
from harness.inspection.load_run import Ask, Subject, rows_at_once
from harness.records.run.find_checkpoint import Checkpoint

if TYPE_CHECKING:
    from harness.data import HeldOut

PROBE = 32
"""Held-out sequences a domain, the first, whose next-token distributions are compared."""


def compare_function(a: Checkpoint, b: Checkpoint, subjects: tuple[Subject, Subject]) -> PredictionDiff:
    """What both say to the held-out tokens of their runs, or in one sentence why they cannot be asked."""
    from harness.data import open_data

    try:
        if refused := _refusal(a, b):
            return PredictionDiff(refused=refused)
        heldout = open_data(a.config.data).heldout(a.config.evaluation.tokens)
    except UserError as error:
        return PredictionDiff(refused=f"the held-out tokens cannot be read: {error}")
    fitting = rows_at_once(a.provenance.facts.shape["vocabulary"], a.config.data.sequence_length)
    rows = min(fitting, max(len(held.tokens_NT) for held in heldout.values()))
    asks = subjects[0].ask(a.step, rows), subjects[1].ask(b.step, rows)
    pairs = [_domain(name, held, asks, rows) for name, held in heldout.items()]
    losses = tuple(loss for _, loss in pairs)
    return PredictionDiff(tuple(probe for probe, _ in pairs), losses, mean_over_domains(losses))


def _refusal(a: Checkpoint, b: Checkpoint) -> str:
    """Empty if the two can be asked the same."""
    from harness.data import describe_data

    if DataKind.images in (a.config.data.kind, b.config.data.kind):
        return "models of images say nothing of a next token"
    left, right = a.provenance.facts, b.provenance.facts
    sizes = left.shape["vocabulary"], right.shape["vocabulary"]
    if sizes[0] != sizes[1]:
        return (
            f"data.tokenizer={a.config.data.tokenizer} has {sizes[0]} tokens and "
            f"{b.config.data.tokenizer} has {sizes[1]}: distributions over two vocabularies do not compare"
        )
    if left.eval_fingerprint != right.eval_fingerprint:
        return f"the two runs are evaluated on other held-out tokens: {_reason(a, b)}"
    now = describe_data(a.config.data, a.config.evaluation.tokens)
    if now.eval_fingerprint != left.eval_fingerprint:
        return "the files of data.sources or data.tokenizer have changed since the two runs were trained"
    return ""


TRAINED_ON = (".weight", ".name", ".stages", ".horizon")
"""Keys of a data config that change nothing of what is held out."""


def _reason(a: Checkpoint, b: Checkpoint) -> str:
    keys = [
        f"{key} is {one} and {other}"
        for key, (one, other) in config_difference(a.config, b.config).items()
        if is_covered_by(key, ["data", "evaluation.tokens"]) and not key.endswith(TRAINED_ON)
    ]
    return ", ".join(keys) or "the files of data.sources or data.tokenizer changed in between"


def _domain(name: str, held: HeldOut, asks: tuple[Ask, Ask], rows: int) -> tuple[PredictionRow, LossRow]:
    """Losses of all held-out sequences, distributions of the first ones."""
    losses_2N: list[list[float]] = [[], []]
    tokens: list[np.ndarray] = []
    probed = min(PROBE, len(held.tokens_NT))
    for start in range(0, len(held.tokens_NT), rows):
        answers = [ask(held.tokens_NT[start : start + rows]) for ask in asks]
        for losses, answer in zip(losses_2N, answers, strict=True):
            losses += answer.losses_N.tolist()
        if start < probed:
            a_NV, b_NV = (_flat(answer.logits_NTV[: probed - start]) for answer in answers)
            tokens.append(compare_tokens(a_NV, b_NV))
    return prediction_row(name, probed, np.concatenate(tokens)), loss_row(name, *losses_2N)


def _flat(logits_NTV: np.ndarray) -> np.ndarray:
    return logits_NTV.reshape(-1, logits_NTV.shape[-1])
