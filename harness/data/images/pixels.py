"""Labelled images from .npz files: reading, checks, and the held-out split."""

from __future__ import annotations

import functools
import hashlib
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from harness.core.errors import UserError
from harness.core.files.expansion import check_expansion
from harness.data.text_sources.source import Source

MAX_VALUES = 2**16
"""Largest number of values of an image. More suggest swapped axes, not a picture."""


@dataclass(frozen=True)
class LabelledImages:
    """Images of one source; labels count from 0."""

    images_NHWC: UInt8[np.ndarray, "N H W C"]
    labels_N: Int64[np.ndarray, " N"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        _, height, width, channels = self.images_NHWC.shape
        return height, width, channels

    @property
    def classes(self) -> int:
        """Number of classes: the largest label plus 1."""
        return int(self.labels_N.max(initial=0)) + 1

    def heldout_mask(self, share: float) -> Bool[np.ndarray, " N"]:
        """Return the mask of held-out images, by pixel hash, so copies stay in one split."""
        hashes = (hashlib.sha256(image.tobytes()).digest()[:8] for image in self.images_NHWC)
        draws = np.array([int.from_bytes(digest, "big") for digest in hashes], np.uint64)
        return draws < share * 2.0**64


def read_images(source: Source) -> LabelledImages:
    """Read the images of all files of a source. Raises UserError for a file without valid images."""
    parts = [_read_file(source, file, file.stat().st_mtime_ns) for file in source.files]
    for file, part in zip(source.files, parts, strict=True):
        if part.shape != parts[0].shape:
            raise UserError(
                f"{source.key}.path={source.path}: images are {_shape_text(part.shape)} in {file.name}, but "
                f"{_shape_text(parts[0].shape)} in {source.files[0].name}. Give them one shape."
            )
    return LabelledImages(
        np.concatenate([part.images_NHWC for part in parts]),
        np.concatenate([part.labels_N for part in parts]),
    )


def check_same_shape(sources: list[Source], image_sets: list[LabelledImages]) -> None:
    """Raise UserError if two sources have images of different shapes."""
    for source, images in zip(sources, image_sets, strict=True):
        if images.shape != image_sets[0].shape:
            raise UserError(
                f"{source.key}.path={source.path} holds images of {_shape_text(images.shape)}, but "
                f"{sources[0].key} of {_shape_text(image_sets[0].shape)}. Use one shape, or one source."
            )


@functools.lru_cache(maxsize=4)
def _read_file(source: Source, file: Path, changed: int) -> LabelledImages:
    """Read one file. `changed`, its modification time, is part of the cache key."""
    where = f"{source.key}.path={source.path}: {file.name}"
    try:
        with zipfile.ZipFile(file) as archive:
            num_bytes = sum(member.file_size for member in archive.infolist())
        check_expansion(where, num_bytes, file.stat().st_size)
        with np.load(file, allow_pickle=False) as content:
            images = content["images"]
            labels = content["labels"] if "labels" in content else np.zeros(len(images), np.int64)
    except KeyError:
        raise UserError(f"{where} has no array `images`: give uint8 [N, H, W] or [N, H, W, C]") from None
    except (ValueError, OSError, EOFError, MemoryError, zlib.error, zipfile.BadZipFile) as error:
        if "allow_pickle" in str(error):
            problem = "holds Python objects, not one array (images of different shapes?)"
            raise UserError(f"{where} {problem}. Give them one shape.") from None
        raise UserError(f"{where} cannot be read: it is damaged, or not a .npz file. Replace it.") from None
    return _validated(images, labels, where)


def _validated(images: np.ndarray, labels: np.ndarray, where: str) -> LabelledImages:
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or not 0 < images[:1].size <= MAX_VALUES:
        raise UserError(
            f"{where}: `images` is {images.dtype} {list(images.shape)}: give uint8 [N, H, W] or "
            f"[N, H, W, C], at most {MAX_VALUES} values an image"
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise UserError(
            f"{where}: `labels` is {labels.dtype} {list(labels.shape)}. Give one integer >= 0 for "
            f"each of the {len(images)} images, or leave it out."
        )
    return LabelledImages(images if images.ndim == 4 else images[..., None], labels.astype(np.int64))


def _shape_text(shape: tuple[int, int, int]) -> str:
    return " x ".join(map(str, shape))
