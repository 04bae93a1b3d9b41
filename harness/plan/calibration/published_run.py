"""Columns of one published run as a model, a machine and a layout. What a row lacks is filled in and named in
`assumed_columns`; entries of its `confidence` that are remembered are in `remembered_notes`."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from harness.config.schema.run import Remat
from harness.core.errors import UserError
from harness.estimate.clusters import Chip, Links
from harness.estimate.known_chips import find_chip
from harness.estimate.layouts import Layout
from harness.estimate.model_size import (
    ModelShape,
    causal_attention_flops,
    decoder_shape,
    read_number,
    require_number,
)
from harness.estimate.precision import FP4, FP8, MIXED, TrainingPrecision

REMAT_NAMES = {
    "": Remat.none, "none": Remat.none, "selective": Remat.dots, "minimal": Remat.dots, "full": Remat.full,
}  # fmt: skip
"""Names of remat in published rows; any other name (such as offloading) is planned as full."""
SHAPE_COLUMNS = {
    "layers": "layers", "d_model": "width", "heads": "heads", "ff": "ffn", "vocab": "vocabulary",
    "seq": "sequence", "kv_heads": "kv_heads",
}  # fmt: skip
"""Columns of the model's sizes, and their names in a ModelShape."""
SPLIT_COLUMNS = ("tp", "pp", "cp", "ep")
"""Columns of the parallel axes."""


@dataclass(frozen=True)
class PublishedRun:
    """Published run, or a planned one with an empty `source`."""

    id: str
    source: str
    """Publication: rows of one source are left out together. Empty: a plan of our own."""
    model: ModelShape
    chip: Chip
    links: Links
    chips: int
    layout: Layout | None
    """Layout; None: not published, so it is searched for."""
    assumed_columns: tuple[str, ...]
    remembered_notes: tuple[str, ...]

    @property
    def is_published(self) -> bool:
        """Return whether this is a published run, not a plan of our own."""
        return bool(self.source)


def read_published_run(row: Mapping[str, Any]) -> PublishedRun:
    """Read a row. Raises UserError for a row without parameters, chips, chip or batch."""
    chip, links, chip_columns = _chip_and_links(row)
    model, model_columns = _model_shape(row)
    model = dataclasses.replace(model, precision=_precision(row))
    chips = int(require_number(row, "chips"))
    layout, layout_columns = _read_layout(row, model, chips)
    notes = str(row.get("confidence") or "").split(";")
    return PublishedRun(
        id=str(row.get("id") or model.name),
        source=publication_of(row),
        model=model,
        chip=chip,
        links=links,
        chips=chips,
        layout=layout,
        assumed_columns=(*chip_columns, *model_columns, *layout_columns),
        remembered_notes=tuple(note.strip() for note in notes if "remembered" in note.lower()),
    )


def publication_of(row: Mapping[str, Any]) -> str:
    """Return the repository or paper of a row: the first owner/name, else the first arXiv number, else the
    words before the first separator. Two tables of one repository are one source."""
    text = str(row.get("source") or row.get("id") or "")
    repository = re.match(r"\s*([\w-]+/[\w.-]+)", text)
    paper = re.search(r"arXiv[: ]*(\d{4}\.\d{4,5})", text)
    if repository:
        return repository.group(1)
    return f"arXiv:{paper.group(1)}" if paper else re.split(r"[,;(]", text)[0].strip()


def _precision(row: Mapping[str, Any]) -> TrainingPrecision:
    text = str(row.get("precision") or "").lower()
    precision = FP4 if "fp4" in text else FP8 if "fp8" in text else MIXED
    return dataclasses.replace(precision, fused_kernels=not _is_before_fused_attention(row))


def _is_before_fused_attention(row: Mapping[str, Any]) -> bool:
    """Return whether a GPU run was published before 2023, by year or arXiv number; without either, float16 on
    chips of that time says so. Frameworks took up fused attention a while after its paper."""
    if "TPU" in str(row.get("chip")):
        return False
    text = " ".join(str(row.get(key) or "") for key in ("source", "notes"))
    months = [(int(y), int(m)) for y, m in re.findall(r"\b(\d\d)(\d\d)\.\d{4,5}\b", text)]
    months += [(int(y) - 2000, int(m)) for y, m in re.findall(r"\b(20[12]\d)-(\d\d)\b", text)]
    if months:
        return max(months) < (23, 1)
    return row.get("precision") == "fp16" and str(row.get("chip"))[:4] in ("A100", "V100")


def _chip_and_links(row: Mapping[str, Any]) -> tuple[Chip, Links, tuple[str, ...]]:
    """Return the named chip at the peak that the row counts with, and the columns that are assumed. An
    unknown chip with a peak is taken in proportion to an H100."""
    name, peak = str(row.get("chip") or "a chip that is not named"), read_number(row, "peak_tflops_bf16")
    try:
        chip, links = find_chip(name)
    except UserError:
        if not peak:
            raise
        chip, links = find_chip("H100-80G")
        scale = peak * 1e12 / chip.peak("bf16")
        links = Links(links.scale_up_domain, links.scale_up * scale, links.scale_out * scale)
        chip = Chip(name, chip.memory, chip.memory_bandwidth * scale, {"bf16": peak * 1e12})
        return chip, links, ("chip",)
    scale = peak * 1e12 / chip.peak("bf16") if peak else 1.0
    peaks = {key: value * scale for key, value in chip.peaks.items()}
    return dataclasses.replace(chip, peaks=peaks), links, ()


def _model_shape(row: Mapping[str, Any]) -> tuple[ModelShape, tuple[str, ...]]:
    """Return the model with published parameter counts, since shapes have three digits only, and the columns
    that are assumed."""
    parameters = int(require_number(row, "params_B") * 1e9)
    active = int((read_number(row, "active_B") or parameters / 1e9) * 1e9)
    sizes, assumed_columns = _read_sizes(row, active)
    batch, batch_columns = _batch_size(row, sizes["sequence"])
    assumed_columns += batch_columns
    moe = active < 0.95 * parameters
    shape = _closest_shape(row, sizes, batch, parameters, moe)
    if not moe:
        return _with_counts(shape, parameters, parameters - shape.embedding), assumed_columns
    per_expert = (3 if shape.gated else 2) * shape.width * shape.ffn * shape.layers
    # Without a published top_k: the most experts whose weights are at most nine tenths of those in use.
    guess = next((k for k in (8, 6, 4, 2) if k * per_expert < 0.9 * active), 1)
    top_k = int(read_number(row, "top_k") or guess)
    routed = parameters - active + top_k * per_expert
    experts = int(read_number(row, "experts") or max(top_k + 1, round(routed / per_expert)))
    shape = dataclasses.replace(shape, experts=experts, top_k=top_k, expert_parameters=routed)
    assumed_columns += () if read_number(row, "top_k") else ("top_k", "experts")
    return _with_counts(shape, parameters, active - shape.embedding), assumed_columns


def _batch_size(row: Mapping[str, Any], sequence: int) -> tuple[int, tuple[str, ...]]:
    """Return sequences per step; if not published, 2M tokens, or one sequence a chip if that is more."""
    sequences, tokens = read_number(row, "batch_seqs"), read_number(row, "batch_tokens")
    if sequences:
        return max(1, round(sequences)), ()
    if tokens:
        return _round_batch(tokens / sequence), ()
    return max(round(2e6 / sequence), int(require_number(row, "chips"))), ("batch",)


def _round_batch(sequences: float) -> int:
    """Return a batch published in round numbers of tokens as sequences that can be split: the nearest
    multiple of the largest power of two that is within a fiftieth."""
    power = 2 ** int(math.log2(max(1.0, sequences)))
    while power > 1 and abs(round(sequences / power) * power / sequences - 1) > 0.02:
        power //= 2
    return max(1, round(sequences / power) * power)


def _with_counts(shape: ModelShape, parameters: int, active: int) -> ModelShape:
    attention_flops = causal_attention_flops(shape.layers, shape.heads, shape.head_width, shape.sequence)
    flops = 6.0 * (active + shape.width * shape.vocabulary) + attention_flops
    return dataclasses.replace(shape, parameters=parameters, active_parameters=active, flops_per_token=flops)


def _read_sizes(row: Mapping[str, Any], active: float) -> tuple[dict[str, int], tuple[str, ...]]:
    """Return sizes by their names in a ModelShape, and the columns that are assumed. Unpublished sizes have
    usual proportions: width 128 a layer, heads of 128, ffn 4 widths."""
    sizes = {key: read_number(row, key) for key in SHAPE_COLUMNS}
    width = sizes["d_model"] or 128 * round((active * 128 / 12) ** (1 / 3) / 128)
    usual = {
        "layers": max(1, round(active / (12 * width**2))),
        "d_model": width,
        "heads": max(1, round(width / 128)),
        "ff": 4 * width,
        "vocab": 50_304,
        "seq": 2_048,
    }
    usual["kv_heads"] = sizes["heads"] or usual["heads"]
    published_columns = {key for key in SHAPE_COLUMNS if sizes[key] is not None} | {"kv_heads", "ff"}
    assumed_columns = tuple(key for key in SHAPE_COLUMNS if key not in published_columns)
    return {name: int(sizes[key] or usual[key]) for key, name in SHAPE_COLUMNS.items()}, assumed_columns


def _closest_shape(
    row: Mapping[str, Any], sizes: dict[str, Any], batch: int, parameters: float, moe: bool
) -> ModelShape:
    """Return the shape with the closest parameter count. Head width and tying are seldom published."""
    plain = max(1, sizes["width"] // sizes["heads"])
    widths = {max(plain, 128)} if moe else {plain, 64, 128, 256}
    candidates = [
        decoder_shape(
            **sizes,
            name=str(row.get("model") or row.get("id") or "published"),
            head_width=head_width,
            batch=batch,
            gated=bool(read_number(row, "gated") or 0),
            tied=tied,
            qk_norm=False,
        )
        for head_width, tied in product(sorted(widths), (False,) if moe else (True, False))
    ]
    return min(candidates, key=lambda shape: abs(shape.parameters - parameters))


def _read_layout(
    row: Mapping[str, Any], model: ModelShape, chips: int
) -> tuple[Layout | None, tuple[str, ...]]:
    """Return the published layout, and its assumed columns; a missing split is 1. The other chips split over
    data, or on TPUs and where nothing else splits the weights, over fsdp."""
    splits = {key: int(read_number(row, key) or 0) for key in SPLIT_COLUMNS}
    if not any(splits.values()) and read_number(row, "dp_or_fsdp") != chips:
        return None, ("layout",)
    tensor, pipeline, context, expert = (max(1, splits[key]) for key in SPLIT_COLUMNS)
    slices = int(read_number(row, "slices") or 1)
    parts = chips // (tensor * pipeline * context)
    if parts < 1:
        tp_pp_cp = tensor * pipeline * context
        raise UserError(f"{row.get('id')}: tp x pp x cp = {tp_pp_cp} is more than chips={chips}.")
    expert = math.gcd(parts, expert) if model.experts else 1
    replicas = max(1, parts // expert)
    shards_weights = "TPU" in str(row.get("chip")) or tensor * pipeline * context * expert == 1
    fsdp = replicas // slices if shards_weights else 1
    assumed_columns = ("remat",) if not row.get("remat") else ()
    assumed_columns += ("vp",) if pipeline > 1 and not read_number(row, "vp") else ()
    layout = Layout(
        data=max(1, replicas // fsdp),
        fsdp=max(1, fsdp),
        tensor=tensor,
        expert=expert,
        pipeline=pipeline,
        context=context,
        # No row has its micro-batch: one sequence in a pipeline, else all at once.
        microbatch=1 if pipeline > 1 else max(1, int(model.batch / parts)),
        virtual=_virtual_stages(row, model, pipeline),
        remat=read_remat(row),
    )
    return layout, assumed_columns


def _virtual_stages(row: Mapping[str, Any], model: ModelShape, pipeline: int) -> int:
    """Return published turns; unpublished: two if a pipeline's stages can be halved. Since 2023 the first and
    last stage may have fewer layers, and embedding and head instead (as arXiv:2407.21783)."""
    if pipeline == 1:
        return 1
    uneven = model.precision.fused_kernels and model.layers >= 2 * pipeline - 2
    return int(read_number(row, "vp") or (2 if uneven or model.layers % (2 * pipeline) == 0 else 1))


def read_remat(row: Mapping[str, Any]) -> Remat:
    """Return the remat of a row."""
    return REMAT_NAMES.get(str(row.get("remat") or "").strip().lower(), Remat.full)
