"""A diffusion transformer's config at given sizes, and its validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from harness.config.schema.run import Config, Kernels, ModuleConfig, ProductsConfig
from harness.core.errors import UserError
from harness.models.mechanism import LayerContext, ModelDims
from harness.models.model_spec import ModelSpec
from harness.models.registry import CONDITIONING, ConfiguredModule


@dataclass(frozen=True)
class ImageModelDims(ModelDims):
    """Sizes of a diffusion transformer and its images. `vocabulary` counts labels; the last: unlabelled."""

    height: int
    breadth: int
    channels: int
    patch: int

    @property
    def grid(self) -> tuple[int, int]:
        """Numbers of patches down and across."""
        return self.height // self.patch, self.breadth // self.patch

    @property
    def patches(self) -> int:
        """Number of patches of an image."""
        return self.grid[0] * self.grid[1]

    @property
    def values(self) -> int:
        """Number of values of a patch."""
        return self.patch**2 * self.channels

    @property
    def pixels(self) -> int:
        """Number of values of an image."""
        return self.height * self.breadth * self.channels


def image_size(shape: Mapping[str, int]) -> tuple[int, int, int] | None:
    """Return height, width and channels of a described shape; None for a decoder's."""
    return (shape["height"], shape["breadth"], shape["channels"]) if "channels" in shape else None


@dataclass(frozen=True)
class ImageModelSpec(ModelSpec):
    """A diffusion transformer's config and sizes. `sequence_length` counts patches, without added tokens."""

    shape: ImageModelDims

    @cached_property
    def conditioning(self) -> ConfiguredModule:
        """The configured conditioning. Raises UserError if no such mechanism is registered."""
        return CONDITIONING.lookup(self.config.conditioning)

    @property
    def display_name(self) -> str:
        """Name of the model in error messages."""
        return f"'{self.config.conditioning.name}' diffusion transformer"

    @property
    def tokens(self) -> int:
        """Number of tokens per image that the layers process."""
        return self.shape.patches + self.conditioning.entry.implementation.extra

    @property
    def head_context(self) -> LayerContext:
        """Context after the last layer, before the head."""
        return self.context(self.shape.layers)


def check_image_config(config: Config, image: tuple[int, int, int] | None) -> tuple[int, int, int]:
    """Return the image size. Raises UserError if config and images do not fit each other."""
    assert image is not None, "checked by the family"
    model, length = config.model, config.data.sequence_length
    height, width, _ = image
    if model.patch < 1 or height % model.patch or width % model.patch:
        raise UserError(
            f"model.patch={model.patch} does not divide images of {height} x {width}. Choose a divisor."
        )
    if (patches := height * width // model.patch**2) != length:
        raise UserError(
            f"data.sequence_length={length} is not the number of patches: images of {height} x {width} have "
            f"{patches} patches of model.patch={model.patch}. Set it to {patches}."
        )
    _check_supported(config)
    return image


def _check_supported(config: Config) -> None:
    model = config.model
    if model.attention != ModuleConfig("mha"):
        raise UserError(
            f"model.attention.name={model.attention.name} is not supported: in a diffusion transformer "
            "every patch attends to every patch. Leave model.attention at mha, without options."
        )
    if model.feedforward != ModuleConfig("swiglu"):
        raise UserError(
            f"model.feedforward.name={model.feedforward.name} is not supported for diffusion transformers. "
            "Leave model.feedforward at swiglu."
        )
    if model.norm != ModuleConfig("rms"):
        raise UserError(
            f"model.norm.name={model.norm.name} is not supported: the norms of a diffusion transformer are"
            " those of its conditioning. Leave model.norm at rms."
        )
    if model.scaling != ModuleConfig("mup"):
        raise UserError(
            f"model.scaling.name={model.scaling.name} is not supported: learning rates of diffusion"
            " transformers are not transferred across sizes. Leave model.scaling at mup."
        )
    if model.base_width is not None:
        raise UserError(
            f"model.base_width={model.base_width} is not supported: learning rates of diffusion "
            "transformers are not transferred across widths. Leave it null."
        )
    if model.logit_softcap is not None:
        raise UserError(
            f"model.logit_softcap={model.logit_softcap} is for logits, but images have none. Leave it null."
        )
    if config.compute.kernels is Kernels.fused:
        raise UserError(
            "compute.kernels=fused: attention of images is written out on every platform. Choose"
            " compute.kernels=auto."
        )
    if config.compute.products != ProductsConfig():
        raise UserError("compute.products is for text models; images keep compute.dtype. Leave it out.")
    if config.loss.z_loss:
        raise UserError(f"loss.z_loss={config.loss.z_loss} is for logits, but images have none. Set it to 0.")
