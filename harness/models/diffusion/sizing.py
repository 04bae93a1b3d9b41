"""From a target of non-embedding parameters to a shape, as for decoders: width, layers and heads follow from
the target alone, and the feed-forward width makes up for what the conditioning has of parameters or FLOPs.

The plain model is that of `in_context`, whose layers are a plain decoder's.
"""

from __future__ import annotations

import dataclasses

from flax import nnx

from harness.config.schema.run import Match, Mechanism, ModelConfig
from harness.core.errors import UserError
from harness.models import sizing
from harness.models.diffusion.diffusion_transformer import Layer
from harness.models.diffusion.flops import model_flops
from harness.models.diffusion.model_spec import ImageBlueprint, ImageShape
from harness.models.parameters import declared


def size(model: ModelConfig, target: int, labels: int, image: tuple[int, int, int]) -> ImageShape:
    """The shape for a target of non-embedding parameters; entries that the config gives are kept.

    Raises UserError if no shape is within 0.5 % of the target (or of the plain model's FLOPs).
    """
    found = sizing.plain_shape(model, target, labels)
    if found.width % 4:
        raise UserError(
            f"model.width={found.width} is no multiple of 4, which cosine and sine of a patch's row and "
            "column share; choose one, or a model.head_width that is"
        )
    height, breadth, channels = image
    shape = ImageShape(
        **dataclasses.asdict(found), height=height, breadth=breadth, channels=channels, patch=model.patch
    )
    if None not in (model.width, model.layers, model.ffn):
        return shape
    plain_model = dataclasses.replace(
        model, conditioning=Mechanism("in_context"), feedforward=Mechanism("swiglu")
    )
    plain = sizing.fit(ImageBlueprint(plain_model, shape, shape.patches), target, non_embedding)
    if model.match is Match.none or model.ffn is not None:
        return plain.shape
    blueprint = ImageBlueprint(model, plain.shape, shape.patches)
    if model.match is Match.flops:
        return sizing.fit(blueprint, model_flops(plain), model_flops).shape
    return sizing.fit(blueprint, target, non_embedding).shape


def non_embedding(blueprint: ImageBlueprint) -> int:
    """Parameters of all layers, and of the norm ahead of the head, counted over one period of the pattern."""
    layers, period = blueprint.shape.layers, blueprint.period
    total = _size(blueprint.conditioning.module(blueprint.head_site))
    for layer in range(min(period, layers)):
        total += len(range(layer, layers, period)) * _size(Layer(blueprint, layer))
    return total


def _size(module: nnx.Module) -> int:
    return sum(spec.size for spec in declared(module).values())
