"""A PNG is what its pixels say, read back by hand."""

import struct
import zlib

import numpy as np
import pytest

from harness.core.png import encode_png, image_grid, is_intact_png


def read(content):
    """Width, height, kind of color and pixels of a PNG without filters."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(content):
        (size,) = struct.unpack_from(">I", content, at)
        name, body = content[at + 4 : at + 8], content[at + 8 : at + 8 + size]
        assert struct.unpack_from(">I", content, at + 8 + size)[0] == zlib.crc32(name + body)
        chunks[name], at = body, at + 12 + size
    width, height, depth, color, *_ = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, [*chunks][-1]) == (8, b"IEND")
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert not lines[:, 0].any()
    return color, lines[:, 1:].reshape(height, width, -1)


@pytest.mark.parametrize(("channels", "color"), [(1, 0), (3, 2)])
def test_pixels_come_back(channels, color):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels)).astype(np.uint8)
    found, read_back = read(encode_png(pixels))
    assert found == color
    np.testing.assert_array_equal(read_back, pixels)


def test_a_grid_has_every_image_in_its_place():
    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((3, 2, 3, 1), np.uint8)
    sheet = image_grid(images, columns=2, zoom=2)
    assert sheet.shape == (2 * (4 + 2) + 2, 2 * (6 + 2) + 2, 1)
    assert (sheet[2:6, 2:8] == 0).all()
    assert (sheet[2:6, 10:16] == 1).all()
    assert (sheet[8:12, 2:8] == 2).all()
    assert (sheet[8:12, 10:16] == 128).all()


def test_every_flipped_bit_and_every_cut_of_a_picture_is_seen():
    content = encode_png(np.random.default_rng(0).integers(0, 256, (3, 4, 3)).astype(np.uint8))
    assert is_intact_png(content)
    for place in range(len(content)):
        assert not is_intact_png(content[:place])
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            assert not is_intact_png(bytes(flipped)), (place, bit)
