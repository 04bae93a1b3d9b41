"""Published runs: the columns of one row as a model, a machine, a layout, and the step time that was seen.

What a row does not say is filled in and named in `Row.assumed`; what its `confidence` calls remembered or
derived is named in `Row.doubtful`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from harness.config.errors import UserError
from harness.config.schema import Remat
from harness.plan.chips import chip_named
from harness.plan.clusters import Chip, Links
from harness.plan.layouts import Layout
from harness.plan.memory import FP4, FP8, MIXED, Recipe
from harness.plan.model import ModelShape, causal_attention_flops, decoder, needed, number

REMATS = {
    "": Remat.none,
    "none": Remat.none,
    "selective": Remat.dots,
    "minimal": Remat.dots,
    "full": Remat.full,
}
"""What rows call it; what is not here (offloading what is kept) is planned as full."""
SHAPE = ("layers", "d_model", "heads", "ff", "vocab", "seq", "kv_heads")
SPLITS = ("tp", "pp", "cp", "ep")


@dataclass(frozen=True)
class Row:
    """One published run, as far as it is told."""

    id: str
    source: str
    """Who published it: rows of one source are left out together. Empty: a plan of our own."""
    model: ModelShape
    chip: Chip
    links: Links
    chips: int
    recipe: Recipe
    layout: Layout | None
    """None: not told, to be searched for."""
    assumed: tuple[str, ...]
    doubtful: tuple[str, ...]

    @property
    def published(self) -> bool:
        return bool(self.source)


def read_row(row: Mapping[str, Any]) -> Row:
    """Raises UserError for a row without parameters, chips, chip or batch."""
    chip, links = chip_named(str(row.get("chip") or "a chip that is not named"))
    peak = number(row, "peak_tflops_bf16")
    if peak is not None and peak > 0:
        chip = _with_peak(chip, peak * 1e12)
    model, assumed = _model(row)
    chips = int(needed(row, "chips"))
    layout, more = _layout(row, model, chips)
    return Row(
        id=str(row.get("id") or model.name),
        source=source_of(row),
        model=model,
        chip=chip,
        links=links,
        chips=chips,
        recipe=_recipe(row),
        layout=layout,
        assumed=(*assumed, *more),
        doubtful=_doubtful(row),
    )


def source_of(row: Mapping[str, Any]) -> str:
    """The repository or paper of a row: the first owner/name, else the first arXiv number, else the words
    before the first separator. Two tables of one repository are one source."""
    text = str(row.get("source") or row.get("id") or "")
    repository = re.match(r"\s*([\w-]+/[\w.-]+)", text)
    paper = re.search(r"arXiv[: ]*(\d{4}\.\d{4,5})", text)
    if repository:
        return repository.group(1)
    return f"arXiv:{paper.group(1)}" if paper else re.split(r"[,;(]", text)[0].strip()


def observed_seconds(row: Mapping[str, Any], model: ModelShape) -> float | None:
    """Seconds of a step as published: told, or from tokens a second, or from FLOP/s in the row's own
    convention; None where none of these is there."""
    told, rate = number(row, "step_time_s"), number(row, "tokens_s_dev")
    chips = needed(row, "chips")
    if told:
        return told
    if rate:
        return model.tokens_per_step / (rate * chips)
    speed = _published_flops_a_second(row)
    return None if speed is None else convention_flops(row, model) / (speed * chips)


def _published_flops_a_second(row: Mapping[str, Any]) -> float | None:
    told, peak = number(row, "tflops_per_dev"), number(row, "peak_tflops_bf16")
    share = number(row, "mfu_pct") or number(row, "hfu_pct")
    if told:
        return told * 1e12
    return None if share is None or peak is None else share / 100 * peak * 1e12


def convention_flops(row: Mapping[str, Any], model: ModelShape) -> float:
    """FLOPs of a step as the row's source counts them: with what is computed again (`hardware`), without
    attention (6 N), with causal attention, or (what most do) with attention to all pairs."""
    said = str(row.get("flops_convention") or "").lower()
    weights = model.flops_per_token - model.attention_flops
    square = 2 * model.attention_flops
    if re.search(r"\b6 ?nd?\b|6 ?\* ?n\b|6nt", said):
        return 6 * (model.active + model.embedding) * model.tokens_per_step
    if "causal" in said and not re.search(r"not (halved|counted)|non-?causal|without", said):
        square = model.attention_flops
    only_mfu = number(row, "tflops_per_dev") is None and number(row, "mfu_pct") is not None
    hardware = re.search(r"hardware|incl[a-z.]* recompute|counts full recompute", said) and not only_mfu
    told_hfu = number(row, "tflops_per_dev") is None and number(row, "mfu_pct") is None
    again = 4 / 3 if (hardware or told_hfu) and _remat(row) is not Remat.none else 1.0
    return (weights + square) * again * model.tokens_per_step


def _recipe(row: Mapping[str, Any]) -> Recipe:
    said = str(row.get("precision") or "").lower()
    recipe = FP4 if "fp4" in said else FP8 if "fp8" in said else MIXED
    return dataclasses.replace(recipe, fused=not _unfused(row))


def _unfused(row: Mapping[str, Any]) -> bool:
    """Of GPUs: published before 2023, by year or arXiv number; without either, float16 on parts of that time
    says so. Frameworks took up fused attention a while after its paper."""
    if "TPU" in str(row.get("chip")):
        return False
    text = " ".join(str(row.get(key) or "") for key in ("source", "notes"))
    months = [(int(y), int(m)) for y, m in re.findall(r"\b(\d\d)(\d\d)\.\d{4,5}\b", text)]
    months += [(int(y) - 2000, int(m)) for y, m in re.findall(r"\b(20[12]\d)-(\d\d)\b", text)]
    if months:
        return max(months) < (23, 1)
    return row.get("precision") == "fp16" and str(row.get("chip"))[:4] in ("A100", "V100")


def _with_peak(chip: Chip, bf16: float) -> Chip:
    """The chip at the peak that the row counts with; 8 bits scaled alike."""
    scale = bf16 / chip.peaks["bf16"]
    return dataclasses.replace(chip, peaks={key: peak * scale for key, peak in chip.peaks.items()})


def _model(row: Mapping[str, Any]) -> tuple[ModelShape, tuple[str, ...]]:
    """Sizes as told; counts of parameters as published, since shapes are told to three digits."""
    parameters = needed(row, "params_B") * 1e9
    active = (number(row, "active_B") or parameters / 1e9) * 1e9
    sizes, assumed = _sizes(row, active)
    batch_tokens, batch = number(row, "batch_tokens"), number(row, "batch_seqs")
    if batch is None:
        batch = max(1, round((batch_tokens or needed(row, "batch_seqs")) / sizes["seq"]))
    moe = active < 0.95 * parameters
    shape = _nearest(row, sizes, int(batch), parameters, moe)
    embedding = shape.embedding
    if not moe:
        own = int(parameters) - embedding
        return _counted(shape, int(parameters), own), assumed
    each = (3 if shape.gated else 2) * shape.width * shape.ffn * shape.layers
    top_k = int(number(row, "top_k") or _top_k(active, each))
    routed = int(parameters - active + top_k * each)
    experts = int(number(row, "experts") or max(top_k + 1, round(routed / each)))
    shape = dataclasses.replace(shape, experts=experts, top_k=top_k, expert_parameters=routed)
    guessed = () if number(row, "top_k") else ("top_k", "experts")
    return _counted(shape, int(parameters), int(active) - embedding), (*assumed, *guessed)


def _counted(shape: ModelShape, parameters: int, active: int) -> ModelShape:
    attended = causal_attention_flops(shape.layers, shape.heads, shape.head_width, shape.sequence)
    flops = 6.0 * (active + shape.width * shape.vocabulary) + attended
    return dataclasses.replace(shape, parameters=parameters, active=active, flops_per_token=flops)


def _top_k(active: float, each: float) -> int:
    """The most experts a token whose weights are still no more than nine tenths of those in use."""
    return next((k for k in (8, 6, 4, 2) if k * each < 0.9 * active), 1)


def _sizes(row: Mapping[str, Any], active: float) -> tuple[dict[str, int], tuple[str, ...]]:
    """Told sizes, the rest by the usual proportions: width 128 a layer, heads of 128, four times the width."""
    told = {key: number(row, key) for key in SHAPE}
    width = told["d_model"] or 128 * round((active * 128 / 12) ** (1 / 3) / 128)
    usual = {
        "layers": max(1, round(active / (12 * width**2))),
        "d_model": width,
        "heads": max(1, round(width / 128)),
        "ff": 4 * width,
        "vocab": 50_304,
        "seq": 2_048,
    }
    usual["kv_heads"] = told["heads"] or usual["heads"]
    assumed = tuple(key for key in SHAPE if told[key] is None and key not in ("kv_heads", "ff"))
    return {key: int(told[key] or usual[key]) for key in SHAPE}, assumed


def _nearest(
    row: Mapping[str, Any], sizes: Mapping[str, int], batch: int, parameters: float, moe: bool
) -> ModelShape:
    """Head width and whether the head is tied are seldom told: those whose count is nearest."""
    gated = bool(number(row, "gated") or 0)
    plain = max(1, sizes["d_model"] // sizes["heads"])
    widths = {max(plain, 128)} if moe else {plain, 64, 128, 256}
    candidates = [
        decoder(
            name=str(row.get("model") or row.get("id") or "published"),
            layers=sizes["layers"],
            width=sizes["d_model"],
            heads=sizes["heads"],
            kv_heads=sizes["kv_heads"],
            head_width=head_width,
            ffn=sizes["ff"],
            vocabulary=sizes["vocab"],
            sequence=sizes["seq"],
            batch=batch,
            gated=gated,
            tied=tied,
            qk_norm=False,
        )
        for head_width, tied in product(sorted(widths), (False,) if moe else (True, False))
    ]
    return min(candidates, key=lambda shape: abs(shape.parameters - parameters))


def _layout(row: Mapping[str, Any], model: ModelShape, chips: int) -> tuple[Layout | None, tuple[str, ...]]:
    """As told, one where a split is not; the rest of the chips is split over data, or on TPUs and where
    nothing else splits the weights, over fsdp."""
    told = {key: int(number(row, key) or 0) for key in SPLITS}
    if not any(told.values()) and number(row, "dp_or_fsdp") != chips:
        return None, ("layout",)
    tensor, pipeline, context, expert = (max(1, told[key]) for key in SPLITS)
    slices = int(number(row, "slices") or 1)
    parts = chips // (tensor * pipeline * context)
    if parts < 1:
        raise UserError(
            f"{row.get('id')}: tp x pp x cp = {tensor * pipeline * context} is more than chips={chips}"
        )
    expert = expert if parts % expert == 0 and model.experts else 1
    rest = max(1, parts // expert)
    whole = "TPU" in str(row.get("chip")) or tensor * pipeline * context * expert == 1
    fsdp = rest // slices if whole else 1
    virtual = _turns(row, model, pipeline)
    unsaid = ("remat",) if not row.get("remat") else ()
    unsaid += ("vp",) if pipeline > 1 and not number(row, "vp") else ()
    return (
        Layout(
            data=max(1, rest // fsdp),
            fsdp=max(1, fsdp),
            tensor=tensor,
            expert=expert,
            pipeline=pipeline,
            context=context,
            microbatch=_microbatch(model.batch / parts, pipeline),
            virtual=virtual,
            remat=_remat(row),
        ),
        unsaid,
    )


def _turns(row: Mapping[str, Any], model: ModelShape, pipeline: int) -> int:
    """As told; two where a pipeline's stages can be halved and nothing is told."""
    if pipeline == 1:
        return 1
    return int(number(row, "vp") or (2 if model.layers % (2 * pipeline) == 0 else 1))


def _microbatch(sequences: float, pipeline: int) -> int:
    """Not told anywhere: one sequence in a pipeline, else all at once."""
    return 1 if pipeline > 1 else max(1, int(sequences))


def _remat(row: Mapping[str, Any]) -> Remat:
    return REMATS.get(str(row.get("remat") or "").strip().lower(), Remat.full)


def _doubtful(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What follows `remembered` or `derived` in the confidence column, one entry each."""
    said = str(row.get("confidence") or "")
    return tuple(part.strip() for part in re.split(r";", said) if re.search(r"remembered", part, re.I))
