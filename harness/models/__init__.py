"""The models that are trained, and the mechanisms that they are made of.

Arrays carry their axes in the name:

    B batch             H query heads        F feed-forward width
    T time (queries)    G key-value heads    V vocabulary
    S source time       R query heads per key-value head (H = G R)
    D model width       K head width         W window; C chunks of it
    L layers            N batch and time as one axis
    I values of an image patch (then T is patches); H, W, C height, width and channels of an image
    I, O input and output axes of a product; Z any leading axes; J pairs of the head width; M = R T

In mixtures of experts:  E experts, K of them per token, A assignments (A = B T K), R rows, M blocks of rows
"""

from harness.models import attention, blocks, feedforward
from harness.models.diffusion import ImageModel, ImageModelDims, image_size
from harness.models.families.build import build
from harness.models.mechanism import LayerContext, MatmulFlops, ModelDims, RouterStats
from harness.models.model_api import Model
from harness.models.norms import dynamic_tanh, layer_norm, rms
from harness.models.parameters import ParamSpec
from harness.models.text.text_model import TextModel

__all__ = [
    "ImageModel",
    "ImageModelDims",
    "LayerContext",
    "MatmulFlops",
    "Model",
    "ModelDims",
    "ParamSpec",
    "RouterStats",
    "TextModel",
    "attention",
    "blocks",
    "build",
    "dynamic_tanh",
    "feedforward",
    "image_size",
    "layer_norm",
    "rms",
]
