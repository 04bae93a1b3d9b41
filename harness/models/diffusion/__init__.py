"""The diffusion transformer: maps noised image patches to the velocity of a flow from image to noise."""

from harness.models.diffusion import conditioning
from harness.models.diffusion.diffusion_model import ImageModel
from harness.models.diffusion.model_spec import ImageModelDims, image_size

__all__ = ["ImageModel", "ImageModelDims", "conditioning", "image_size"]
