"""Image grids, a PNG encoder (ISO/IEC 15948) for eight bits per channel, and a check of PNG files."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from jaxtyping import UInt8

GAP = 2
"""Pixels between the images of a grid."""
SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOR_TYPE = {1: 0, 3: 2}
"""PNG colour type by number of channels: grey, RGB."""


def encode_png(pixels_HWC: UInt8[np.ndarray, "H W C"]) -> bytes:
    """Return the bytes of a PNG file. Without three channels, only the first is drawn, in grey."""
    image = pixels_HWC if pixels_HWC.shape[2] == 3 else pixels_HWC[..., :1]
    height, width, channels = image.shape
    lines = np.zeros((height, 1 + width * channels), np.uint8)  # the first byte of a row is its filter: none
    lines[:, 1:] = image.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, COLOR_TYPE[channels], 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b"")
    return SIGNATURE + b"".join(_chunk(*chunk) for chunk in chunks)


def is_intact_png(content: bytes) -> bool:
    """Return whether the bytes are a PNG file whose chunks all match their CRC-32. No pixel is decoded."""
    position, name = len(SIGNATURE), b""
    if not content.startswith(SIGNATURE):
        return False
    while position < len(content):
        (size,) = struct.unpack(">I", content[position : position + 4].ljust(4))
        name, end = content[position + 4 : position + 8], position + 12 + size
        if content[position:end] != _chunk(name, content[position + 8 : end - 4]):
            return False
        position = end
    return name == b"IEND"


def png_size(content: bytes) -> tuple[int, int]:
    """Return width and height of a PNG file in pixels."""
    width, height = struct.unpack(">II", content[16:24])
    return width, height


def image_grid(
    images_NHWC: UInt8[np.ndarray, "N H W C"], columns: int, zoom: int = 1
) -> UInt8[np.ndarray, "Y X C"]:
    """Arrange images row by row on a grey background; `zoom` enlarges each pixel to zoom x zoom."""
    big = images_NHWC.repeat(zoom, axis=1).repeat(zoom, axis=2)
    count, height, width, channels = big.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, channels), 128, np.uint8)
    for index, image in enumerate(big):
        row, column = divmod(index, columns)
        y, x = GAP + row * (height + GAP), GAP + column * (width + GAP)
        sheet[y : y + height, x : x + width] = image
    return sheet


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
