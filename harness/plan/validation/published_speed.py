"""Speed of a published run as seconds of a step."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from harness.config.schema.run import Remat
from harness.plan.calibration.published_run import read_remat
from harness.plan.cost_model.model_size import ModelShape, read_number, require_number


def observed_seconds(row: Mapping[str, Any], model: ModelShape) -> float | None:
    """Return the published seconds of a step, also from tokens per second, or from FLOP/s in the row's own
    convention; None if the row has none of these."""
    seconds, rate = read_number(row, "step_time_s"), read_number(row, "tokens_s_dev")
    chips = require_number(row, "chips")
    if seconds:
        return seconds
    if rate:
        return model.tokens_per_step / (rate * chips)
    speed = _published_flops_per_second(row)
    return None if speed is None else convention_flops(row, model) / (speed * chips)


def _published_flops_per_second(row: Mapping[str, Any]) -> float | None:
    teraflops, peak = read_number(row, "tflops_per_dev"), read_number(row, "peak_tflops_bf16")
    share = read_number(row, "mfu_pct") or read_number(row, "hfu_pct")
    if teraflops:
        return teraflops * 1e12
    return None if share is None or peak is None else share / 100 * peak * 1e12


def convention_flops(row: Mapping[str, Any], model: ModelShape) -> float:
    """Return the FLOPs of a step as the row's source counts them: with recomputation (`hardware`), without
    attention (6 N), with causal attention, or (the most common) with attention to all pairs."""
    convention = str(row.get("flops_convention") or "").lower()
    weights = model.flops_per_token - model.attention_flops
    square = 2 * model.attention_flops
    if re.search(r"\b6 ?nd?\b|6 ?\* ?n\b|6nt", convention):
        return 6 * (model.active_parameters + model.embedding) * model.tokens_per_step
    if "causal" in convention and not re.search(r"not (halved|counted)|non-?causal|without", convention):
        square = model.attention_flops
    only_mfu = read_number(row, "tflops_per_dev") is None and read_number(row, "mfu_pct") is not None
    hardware = re.search(r"hardware|incl[a-z.]* recompute|counts full recompute", convention) and not only_mfu
    told_hfu = read_number(row, "tflops_per_dev") is None and read_number(row, "mfu_pct") is None
    recompute_factor = 4 / 3 if (hardware or told_hfu) and read_remat(row) is not Remat.none else 1.0
    return (weights + square) * recompute_factor * model.tokens_per_step
