"""The diffusion transformer: patches of images in, the velocity of a flow from noise out."""

from harness.models.diffusion import conditioning
from harness.models.diffusion.diffusion_model import ImageModel, build
from harness.models.diffusion.model_spec import ImageShape, image_of

__all__ = ["ImageModel", "ImageShape", "build", "conditioning", "image_of"]
