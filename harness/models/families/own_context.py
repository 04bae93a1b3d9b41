"""Facts that a model of a user's own is given, and the parts of an image's row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

HEADER_WORDS = 4
"""Words of an image's row before its pixels: noise key (2), time, label."""


@dataclass(frozen=True)
class ModelContext:
    """Facts about a run: everything that a model of a user's own may depend on when it is built."""

    parameters: int
    """Target number of parameters at this scale (`scale.parameters`), without an embedding. What the model
    makes of it is its own affair: sizes are counted, never matched."""
    vocabulary: int
    """Number of tokens; of images, labels and one for no label."""
    sequence_length: int
    """Number of tokens of an example (`data.sequence_length`)."""
    row: tuple[int, ...]
    """Shape of an example in a batch of rows."""
    image: tuple[int, int, int] | None
    """Height, width and channels of images."""
    dtype: Any
    """Dtype of products (`compute.dtype`). Parameters are always float32."""


@dataclass(frozen=True)
class OwnDims:
    """Sizes of a model of a user's own that are known: those of its data."""

    vocabulary: int
    width: int = 0
    """Zero: such a model has no width that learning rates could be carried by."""


@dataclass(frozen=True)
class OwnImageDims(OwnDims):
    """Sizes of a model of a user's own of images."""

    height: int = 0
    breadth: int = 0
    channels: int = 0


class ImageRows(NamedTuple):
    """Images and labels of a batch of rows."""

    pixels_BHWC: Array
    """Values from -1 to 1, float32."""
    label_B: Array
    """Labels, int32; the last one of the vocabulary means no label (`data.label_dropout`)."""


def decode_images(rows_BR: Array, context: ModelContext) -> ImageRows:
    """Return the images and labels of a batch as the data gives it (`data.kind=images`)."""
    assert context.image is not None
    pixels_BP = rows_BR[:, HEADER_WORDS:].astype(jnp.float32) / 127.5 - 1
    return ImageRows(pixels_BP.reshape(-1, *context.image), rows_BR[:, HEADER_WORDS - 1])
