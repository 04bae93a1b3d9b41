"""Predictions of two models on the same held-out tokens: distributions on a fixed probe, loss per example."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.compare.checkpoints.diff_types import LossRow, PredictionDiff, PredictionRow
from harness.compare.checkpoints.distances import compare_tokens, loss_row, mean_over_domains, prediction_row
from harness.config.run_identity import config_difference
from harness.core.errors import UserError
from harness.core.hashing import is_covered_by
from harness.inspection.load_run import LoadedRun, PredictFn, max_rows
from harness.records.run.find_checkpoint import Checkpoint

if TYPE_CHECKING:
    from harness.data import HeldOut

PROBE_SEQUENCES = 32
"""Number of first held-out sequences per domain whose next-token distributions are compared."""


def compare_predictions(a: Checkpoint, b: Checkpoint, runs: tuple[LoadedRun, LoadedRun]) -> PredictionDiff:
    """Compare the predictions on the held-out tokens, or return the reason why that is impossible."""
    from harness.data import heldout_rows, open_data

    try:
        if reason := _incomparable_reason(a, b, runs):
            return PredictionDiff(refused=reason)
        held_out = heldout_rows(a.config, open_data(a.config.data))
    except UserError as error:
        return PredictionDiff(refused=f"the held-out tokens cannot be read: {error}")
    limit = max_rows(a.provenance.facts.shape["vocabulary"], a.config.data.sequence_length)
    rows = min(limit, max(len(domain.tokens_NT) for domain in held_out.values()))
    predict_fns = runs[0].predict_fn(a.step, rows), runs[1].predict_fn(b.step, rows)
    pairs = [_compare_domain(name, domain, predict_fns, rows) for name, domain in held_out.items()]
    losses = tuple(loss for _, loss in pairs)
    return PredictionDiff(tuple(row for row, _ in pairs), losses, mean_over_domains(losses))


def _incomparable_reason(a: Checkpoint, b: Checkpoint, runs: tuple[LoadedRun, LoadedRun]) -> str:
    """Return why the predictions cannot be compared; empty if they can."""
    from harness.data import describe_evaluated

    if silent := [run for run in runs if not run.predicts_tokens]:
        return f"{silent[0].noun}s do not predict tokens"
    left, right = a.provenance.facts, b.provenance.facts
    sizes = left.shape["vocabulary"], right.shape["vocabulary"]
    if sizes[0] != sizes[1]:
        return (
            f"data.tokenizer={a.config.data.tokenizer} has {sizes[0]} tokens and "
            f"{b.config.data.tokenizer} has {sizes[1]}: their distributions cannot be compared"
        )
    if left.eval_fingerprint != right.eval_fingerprint:
        return f"the two runs have different held-out tokens: {_held_out_difference(a, b)}"
    now = describe_evaluated(a.config)
    if now.eval_fingerprint != left.eval_fingerprint:
        files = "data.sources, evaluation.sets or data.tokenizer"
        return f"the files of {files} changed after the two runs were trained"
    return ""


EVALUATED_KEYS = ["data", "evaluation.tokens", "evaluation.sets", "evaluation.decontaminate"]
"""Keys that decide the held-out tokens."""
TRAINING_ONLY_KEYS = (".weight", ".name", ".stages", ".horizon", ".packing", ".order", ".order_block")
"""Ends of data keys that do not affect the held-out tokens."""


def _held_out_difference(a: Checkpoint, b: Checkpoint) -> str:
    keys = [
        f"{key} is {left} and {right}"
        for key, (left, right) in config_difference(a.config, b.config).items()
        if is_covered_by(key, EVALUATED_KEYS) and not key.endswith(TRAINING_ONLY_KEYS)
    ]
    return ", ".join(keys) or "the files of data.sources or data.tokenizer changed between the runs"


def _compare_domain(
    name: str, held_out: HeldOut, predict_fns: tuple[PredictFn, PredictFn], rows: int
) -> tuple[PredictionRow, LossRow]:
    """Compare the losses of all held-out sequences, and the distributions of the first ones."""
    losses_2N: list[list[float]] = [[], []]
    tokens: list[np.ndarray] = []
    probe_count = min(PROBE_SEQUENCES, len(held_out.tokens_NT))
    for start in range(0, len(held_out.tokens_NT), rows):
        outputs = [predict(held_out.tokens_NT[start : start + rows]) for predict in predict_fns]
        for losses, output in zip(losses_2N, outputs, strict=True):
            losses += output.losses_N.tolist()
        if start < probe_count:
            a_NV, b_NV = (np.concatenate(output.logits_NTV[: probe_count - start]) for output in outputs)
            tokens.append(compare_tokens(a_NV, b_NV))
    return prediction_row(name, probe_count, np.concatenate(tokens)), loss_row(name, *losses_2N)
