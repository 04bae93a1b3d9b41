"""The diffusion transformer: patches of images in, the velocity of a flow from noise out."""

from harness.models.diffusion import conditioning
from harness.models.diffusion.diffusion_model import ImageModel, build
from harness.models.diffusion.model_spec import ImageModelDims, image_size

__all__ = ["ImageModel", "ImageModelDims", "build", "conditioning", "image_size"]
