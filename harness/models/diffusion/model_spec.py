"""A diffusion transformer's config at one shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from harness.config.schema.run import Config, ModelFamily, ModuleConfig
from harness.core.errors import UserError
from harness.models.mechanism import LayerContext, ModelDims
from harness.models.model_spec import ModelSpec
from harness.models.registry import ConfiguredModule, lookup


@dataclass(frozen=True)
class ImageModelDims(ModelDims):
    """`vocabulary` are the labels, the last of them for none."""

    height: int
    breadth: int
    channels: int
    patch: int

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        return self.height // self.patch, self.breadth // self.patch

    @property
    def patches(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def values(self) -> int:
        """Of a patch."""
        return self.patch**2 * self.channels

    @property
    def pixels(self) -> int:
        """Values of an image."""
        return self.height * self.breadth * self.channels


def image_size(shape: Mapping[str, int]) -> tuple[int, int, int] | None:
    """Height, width and channels from a described shape; None for a decoder's."""
    return (shape["height"], shape["breadth"], shape["channels"]) if "channels" in shape else None


@dataclass(frozen=True)
class ImageModelSpec(ModelSpec):
    """`sequence_length` is that of the patches; what tells time and label may add tokens to it."""

    shape: ImageModelDims

    @cached_property
    def conditioning(self) -> ConfiguredModule:
        return lookup("conditioning", self.config.conditioning)

    @property
    def display_name(self) -> str:
        return f"'{self.config.conditioning.name}' diffusion transformer"

    @property
    def tokens(self) -> int:
        """All tokens of an image that the layers see."""
        return self.shape.patches + self.conditioning.mechanism.module.extra

    @property
    def head_context(self) -> LayerContext:
        """Ahead of the head, after the last layer."""
        return self.layer_context(self.shape.layers)


def check_image_config(config: Config, image: tuple[int, int, int] | None) -> tuple[int, int, int]:
    """The image, where config and data fit each other. Raises UserError."""
    model, length = config.model, config.data.sequence_length
    if image is None:
        raise UserError(
            f"model.kind=dit is for images, but data={config.data.name} is text: choose data=digits, "
            "or model=decoder"
        )
    if model.kind is not ModelFamily.dit:
        raise UserError(
            f"model.kind={model.kind.value} is for text, but data={config.data.name} is images: "
            "choose model=dit"
        )
    height, width, _ = image
    if model.patch < 1 or height % model.patch or width % model.patch:
        raise UserError(
            f"model.patch={model.patch} does not divide images of {height} x {width}: choose a common divisor"
        )
    if (patches := height * width // model.patch**2) != length:
        raise UserError(
            f"data.sequence_length={length} is not the number of patches: images of {height} x {width} have "
            f"{patches} of model.patch={model.patch}; give {patches}"
        )
    _check_supported(config)
    return image


def _check_supported(config: Config) -> None:
    model = config.model
    if model.attention != ModuleConfig("mha"):
        raise UserError(
            f"model.attention.name={model.attention.name}: a diffusion transformer lets every patch see "
            "every other; leave model.attention at mha, without options"
        )
    if model.feedforward != ModuleConfig("swiglu"):
        raise UserError(
            f"model.feedforward.name={model.feedforward.name}: a diffusion transformer is built with the "
            "plain layer only; leave model.feedforward at swiglu"
        )
    if model.base_width is not None:
        raise UserError(
            f"model.base_width={model.base_width}: learning rates of a diffusion transformer are not carried "
            "across widths; leave it null"
        )
    if config.loss.z_loss:
        raise UserError(f"loss.z_loss={config.loss.z_loss} is for logits, which images have not: give 0")
