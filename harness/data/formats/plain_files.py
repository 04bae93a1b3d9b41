"""Files that hold tokens one after another: llm.c, nanoGPT and NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from harness.data.formats.token_format import (
    FileTokens,
    TokenFileError,
    TokenReader,
    check_integer,
    register_token_format,
)
from harness.data.tokens.token_sequence import TokenFile

HEADER_INTS = 256
"""Number of int32 in the header of llm.c."""
MAGICS = {20240520: (1, np.dtype("<u2")), 20240801: (7, np.dtype("<u4"))}
"""Version and dtype of the tokens by the first number of the header: GPT-2 and Llama 3 in llm.c."""


@register_token_format("llm_c", suffixes=(".bin",))
class LlmC(TokenReader):
    """Shards of llm.c and modded-nanogpt: a header of 256 int32, then the tokens."""

    @classmethod
    def recognises(cls, file: Path, head: bytes) -> bool:
        """Return whether the first number is a magic number of llm.c."""
        return int.from_bytes(head[:4], "little") in MAGICS

    def open(self, file: Path, column: str) -> FileTokens:
        """Return the tokens after the header, whose number the header has to tell."""
        header = np.fromfile(file, "<i4", HEADER_INTS)
        if len(header) < HEADER_INTS or int(header[0]) not in MAGICS:
            raise TokenFileError("has no header of llm.c. Name its format with data.sources.NAME.format=...")
        version, dtype = MAGICS[int(header[0])]
        if header[1] != version:
            raise TokenFileError(f"is of version {header[1]} of llm.c; version {version} can be read.")
        return _plain(file, header.nbytes, dtype, int(header[2]))


@dataclass(frozen=True)
class HeaderlessOptions:
    """Facts that a file without a header does not tell."""

    dtype: Literal["uint16", "uint32", "int32", "int64"]


@register_token_format("nanogpt", HeaderlessOptions)
class NanoGPT(TokenReader):
    """Files without a header, such as those of nanoGPT: the options tell the dtype."""

    options: HeaderlessOptions

    def open(self, file: Path, column: str) -> FileTokens:
        """Return all of the file as tokens."""
        dtype = np.dtype(self.options.dtype).newbyteorder("<")
        size = file.stat().st_size
        if size % dtype.itemsize:
            raise TokenFileError(
                f"has {size} bytes, which is no multiple of {dtype.itemsize}: it is cut short, or its tokens"
                f" are not {self.options.dtype}. Correct data.sources.NAME.options.dtype or copy it again."
            )
        return FileTokens((TokenFile(file, 0, dtype, size // dtype.itemsize),))


@register_token_format("npy", suffixes=(".npy",))
class Npy(TokenReader):
    """Arrays of NumPy: tokens [N], or rows of packed tokens [R, T]."""

    def open(self, file: Path, column: str) -> FileTokens:
        """Return the values of the array in their order."""
        try:
            with file.open("rb") as stream:
                version = np.lib.format.read_magic(stream)
                read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
                    version, np.lib.format.read_array_header_2_0
                )
                shape, is_fortran, dtype = read(stream)
                offset = stream.tell()
        except ValueError:
            raise TokenFileError("is not a file of NumPy. Write it with numpy.save.") from None
        if len(shape) not in (1, 2) or (is_fortran and len(shape) > 1):
            raise TokenFileError(
                f"holds an array of shape {[*shape]}{' in Fortran order' * is_fortran}. Write tokens [N] or"
                " rows [R, T] in C order."
            )
        return _plain(file, offset, check_integer(dtype), int(np.prod(shape)))


def _plain(file: Path, offset: int, dtype: np.dtype, count: int) -> FileTokens:
    """Return `count` tokens after a header. Raises TokenFileError unless the file ends there."""
    size, expected = file.stat().st_size, offset + count * dtype.itemsize
    if size != expected:
        problem = "it is cut short" if size < expected else "something was added"
        raise TokenFileError(
            f"has {size} bytes, but its header tells {expected} ({count} tokens of {dtype.name}): {problem}."
            " Copy it again."
        )
    return FileTokens((TokenFile(file, offset, dtype, count),))
