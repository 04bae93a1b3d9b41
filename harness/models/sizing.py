"""Choice of a model's sizes from a target number of non-embedding parameters.

Width, layers and heads follow from the target alone, as for a plain decoder (`mha`, `swiglu`), so all
variants of a scale share them. The feed-forward width then makes a variant equal to the target (`match:
params`), equal to the plain decoder's FLOPs (`flops`), or keeps the plain decoder's width (`none`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import TypeVar

from flax import nnx

from harness.config.schema.run import MatchBy, ModelConfig
from harness.core.errors import UserError
from harness.models.flops import model_flops
from harness.models.mechanism import ModelDims
from harness.models.model_spec import ModelSpec
from harness.models.parameters import param_specs
from harness.models.text.layer import build_layer

SpecT = TypeVar("SpecT", bound=ModelSpec)

TOLERANCE = 0.005
"""Largest deviation relative to the target; two variants within it differ by at most 1 %."""

FFN_PER_WIDTH = 8 / 3
"""Feed-forward width per model width: three matrices of 8/3 have the size of the classical two of 4."""

ROUND_FFN = (128, 64, 32, 16, 8, 4, 2, 1)
"""Multiples to try, largest first: round widths fill vector and matrix units, and divide over devices."""


def choose_dims(model: ModelConfig, target: int, vocabulary: int, sequence_length: int) -> ModelDims:
    """Return the sizes for a target of non-embedding parameters, keeping the sizes that the config sets.

    Raises UserError if no sizes come within 0.5 % of the target (or of the plain decoder's FLOPs), and names
    the nearest.
    """
    spec = ModelSpec(model, plain_dims(model, target, vocabulary), sequence_length)
    default = ModelConfig()
    parts = ("attention", "feedforward", "block", "norm", "position", "embedding", "head")
    plain = dataclasses.replace(model, **{part: getattr(default, part) for part in parts})
    return match_ffn_width(spec, plain, target, count_non_embedding, model_flops).shape


def count_non_embedding(spec: ModelSpec) -> int:
    """Return the number of parameters of all layers, of the stream's ends and the final norm. Tables whose
    rows are read by index are embeddings."""
    outer, stream = spec.outer_context, spec.block.entry.stream
    modules = [outer.norm(spec.shape.width), *([stream(outer, spec.block.options)] if stream else [])]
    return sum(map(_count_outside_tables, modules)) + count_layer_parameters(spec, build_layer)


def count_layer_parameters(spec: SpecT, layer: Callable[[SpecT, int], nnx.Module]) -> int:
    """Return the number of parameters of all layers without tables, counted over one period of the pattern,
    or layer by layer where they differ."""
    layers = spec.shape.layers
    period = layers if spec.scan_obstacle else spec.period
    return sum(
        len(range(index, layers, period)) * _count_outside_tables(layer(spec, index))
        for index in range(min(period, layers))
    )


def _count_outside_tables(module: nnx.Module) -> int:
    return sum(spec.size for spec in param_specs(module).values() if spec.axes[:1] != ("vocabulary",))


def match_ffn_width(
    spec: SpecT,
    plain_model: ModelConfig,
    target: int,
    count: Callable[[SpecT], int],
    flops: Callable[[SpecT], float],
) -> SpecT:
    """Return the spec with the feed-forward width at which `count` meets the target, or `flops` the plain
    model's (`model.match`); the spec itself if the config sets all sizes. Raises UserError if none does."""
    model = spec.config
    if None not in (model.width, model.layers, model.ffn):
        return spec
    plain = fit_ffn_width(dataclasses.replace(spec, config=plain_model), target, count)
    if model.match is MatchBy.none or model.ffn is not None:
        return plain
    spec = dataclasses.replace(spec, shape=plain.shape)
    if model.match is MatchBy.flops:
        return fit_ffn_width(spec, flops(plain), flops)
    return fit_ffn_width(spec, target, count)


def fit_ffn_width(spec: SpecT, target: float, measure: Callable[[SpecT], float]) -> SpecT:
    """Return the spec with the roundest feed-forward width whose `measure` is within TOLERANCE of the target.
    Raises UserError if there is none."""

    def at(ffn: int) -> SpecT:
        return dataclasses.replace(spec, shape=dataclasses.replace(spec.shape, ffn=ffn))

    if spec.config.ffn is not None:
        return _check_target(spec, target, measure)
    # Both measures are affine in the feed-forward width: two points give the line.
    at_one, at_two = measure(at(1)), measure(at(2))
    exact = 1 + (target - at_one) / (at_two - at_one)
    widths = [max(1, round(exact / multiple)) * multiple for multiple in ROUND_FFN]
    close_widths = [
        ffn for ffn in widths if abs(at_one + (ffn - 1) * (at_two - at_one) - target) <= TOLERANCE * target
    ]
    return _check_target(at(close_widths[0] if close_widths else widths[-1]), target, measure)


def _check_target(spec: SpecT, target: float, measure: Callable[[SpecT], float]) -> SpecT:
    value, shape = measure(spec), spec.shape
    if abs(value - target) > TOLERANCE * target:
        unit = "model FLOPs a token" if measure.__name__ == "model_flops" else "non-embedding parameters"
        raise UserError(
            f"No {spec.display_name} is within 0.5 % of {target:,.0f} {unit}."
            f" The nearest has {value:,.0f} (width {shape.width}, {shape.layers} layers, ffn {shape.ffn})."
            " Set scale.parameters to that, or change or unset model.width, layers, heads or ffn."
        )
    return spec


def plain_dims(model: ModelConfig, target: int, vocabulary: int) -> ModelDims:
    """Return the sizes of the plain decoder near the target whose proportions are the most typical."""
    _check_head_width(model)
    aspect = typical_aspect(target)
    width = (target * aspect / 12) ** (1 / 3)  # 12 width^2 parameters a layer, width / aspect layers
    candidates = []
    for w, heads in _width_candidates(model, width):
        middle = int(target / (12 * w**2))
        for layers in (model.layers,) if model.layers is not None else range(max(1, middle - 1), middle + 3):
            ffn = model.ffn or _plain_ffn_width(model, target, w, layers, heads)
            candidates.append(ModelDims(w, layers, heads, model.head_width, ffn, vocabulary))
    return min(candidates, key=lambda shape: _sort_key(model, shape, target, aspect))


def _check_head_width(model: ModelConfig) -> None:
    if model.head_width % 2:
        raise UserError(
            f"model.head_width={model.head_width} is odd, but positions rotate pairs. Choose an even one."
        )
    if model.width is not None and model.heads is None and model.width % model.head_width:
        raise UserError(
            f"model.width={model.width} is not a multiple of model.head_width={model.head_width}."
            " Choose one that is, or set model.heads."
        )


def typical_aspect(target: int) -> float:
    """Return width over layers: 16 at 20k parameters, 65 at 1B, at most 128 as in the largest decoders."""
    return min(128.0, 16 * (target / 20_000) ** 0.13)


def _width_candidates(model: ModelConfig, ideal: float) -> Iterator[tuple[int, int]]:
    """Yield (width, heads) around the ideal width, with numbers of heads that groups and devices divide."""
    if model.width is not None:
        yield model.width, model.heads or model.width // model.head_width
        return
    if model.heads is not None:
        yield model.heads * model.head_width, model.heads
        return
    heads = ideal / model.head_width
    step = max(4, 2 ** (int(math.log2(max(heads, 1))) - 3))
    first, last = max(1, int(heads / 2 // step)), int(heads * 2 // step) + 1
    for count in {1, 2} | {step * multiple for multiple in range(first, last + 1)}:
        yield count * model.head_width, count


def _plain_ffn_width(model: ModelConfig, target: int, width: int, layers: int, heads: int) -> int:
    """Return the feed-forward width at which a plain decoder of this width and depth meets the target."""
    attention = 4 * width * heads * model.head_width
    budget = target - width - layers * (attention + 2 * width + 2 * model.head_width * model.qk_norm)
    return max(1, round(budget / (3 * width * layers)))


def _sort_key(model: ModelConfig, shape: ModelDims, target: int, aspect: float) -> tuple[bool, float]:
    """Return the sort key of candidate sizes, first those whose feed-forward width can meet any target."""
    per_ffn = 3 * shape.width * shape.layers
    if model.ffn is not None:
        error = shape.ffn - _plain_ffn_width(model, target, shape.width, shape.layers, shape.heads)
        return False, abs(error) * per_ffn
    coarse = per_ffn / 2 > TOLERANCE * target or shape.ffn == 1
    odd_aspect = abs(math.log(shape.width / shape.layers / aspect))
    return coarse, odd_aspect + 2 * abs(math.log(shape.ffn / (FFN_PER_WIDTH * shape.width)))
