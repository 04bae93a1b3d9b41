"""Choice of a diffusion transformer's sizes from a target number of non-embedding parameters, as for
decoders: width, layers and heads follow from the target alone, and the feed-forward width makes up for the
parameters or FLOPs of the conditioning.

The plain model uses `in_context`, whose layers are those of a plain decoder.
"""

from __future__ import annotations

import dataclasses

from harness.config.schema.run import ModelConfig, ModuleConfig
from harness.core.errors import UserError
from harness.models import sizing
from harness.models.diffusion.diffusion_transformer import DiTLayer
from harness.models.diffusion.flops import model_flops
from harness.models.diffusion.model_spec import ImageModelDims, ImageModelSpec
from harness.models.parameters import count_parameters


def choose_image_dims(
    model: ModelConfig, target: int, labels: int, image: tuple[int, int, int]
) -> ImageModelDims:
    """Return the sizes for a target of non-embedding parameters, keeping the sizes that the config sets.

    Raises UserError if no sizes come within 0.5 % of the target (or of the plain model's FLOPs).
    """
    plain_dims = sizing.plain_dims(model, target, labels)
    if plain_dims.width % 4:
        raise UserError(
            f"model.width={plain_dims.width} is not a multiple of 4, as position embeddings need: cosine "
            "and sine of row and column. Choose a multiple of 4, or a model.head_width that is one."
        )
    height, breadth, channels = image
    shape = ImageModelDims(
        **dataclasses.asdict(plain_dims), height=height, breadth=breadth, channels=channels, patch=model.patch
    )
    spec = ImageModelSpec(model, shape, shape.patches)
    in_context, swiglu = ModuleConfig("in_context"), ModuleConfig("swiglu")
    plain = dataclasses.replace(model, conditioning=in_context, feedforward=swiglu)
    return sizing.match_ffn_width(spec, plain, target, count_non_embedding, model_flops).shape


def count_non_embedding(spec: ImageModelSpec) -> int:
    """Return the number of parameters of all layers and of the norm before the head."""
    conditioning = spec.conditioning.build(spec.head_context)
    return count_parameters(conditioning) + sizing.count_layer_parameters(spec, DiTLayer)
