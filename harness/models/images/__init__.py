"""The diffusion transformer: patches of images in, the velocity of a flow from noise out."""

from harness.models.images import conditioning
from harness.models.images.blueprint import ImageShape, image_of
from harness.models.images.model import ImageModel, build

__all__ = ["ImageModel", "ImageShape", "build", "conditioning", "image_of"]
