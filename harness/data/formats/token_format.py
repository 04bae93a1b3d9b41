"""Registry of formats of files that hold tokens (`data.sources.NAME.format`).

@register_token_format("tok", Options, suffixes=(".tok",))
class Tok(TokenReader):
    def open(self, file: Path, column: str) -> FileTokens:
        part = TokenFile(file, offset=16, dtype=np.dtype("<u2"), count=(file.stat().st_size - 16) // 2)
        return FileTokens((part,))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int, Int64

from harness.config.schema.run import ModuleConfig
from harness.config.socket_registry import NoOptions, Registry
from harness.core.errors import UserError, did_you_mean
from harness.data.tokens.cached_arrays import file_version
from harness.data.tokens.token_sequence import TokenPart

HEAD_BYTES = 16
"""First bytes of a file by which a format is recognised."""

Reader = TypeVar("Reader", bound="type[TokenReader]")


class TokenFileError(Exception):
    """Defect of a file. The message continues a sentence that begins with the file: `is cut short. ...`"""


@dataclass(frozen=True)
class FileTokens:
    """Tokens of a file, where they lie."""

    parts: tuple[TokenPart, ...]
    """Tokens in their order."""
    find_starts: Callable[[], Int64[np.ndarray, " D"] | None] = lambda: None
    """Function that returns the place of the first token of each document, rising from 0; None if the
    format does not say where documents begin."""
    is_sample: bool = False
    """True if these are only some of the tokens, by which the file can be judged at once."""

    def __len__(self) -> int:
        """Return the number of tokens."""
        return sum(map(len, self.parts))

    @property
    def dtype(self) -> np.dtype:
        """Integer type of the tokens; that of an empty file is int64."""
        return next((part.read(0, 1).dtype for part in self.parts if len(part)), np.dtype(np.int64))


class TokenReader:
    """Base of formats. Its methods raise TokenFileError for what is not of the format."""

    def __init__(self, options: Any) -> None:
        self.options = options

    @classmethod
    def recognises(cls, file: Path, head: bytes) -> bool:
        """Return whether a file with one of the suffixes is of this format, by its first HEAD_BYTES bytes."""
        return True

    @classmethod
    def files_of(cls, path: Path) -> list[Path]:
        """Return the files, in order, of a path that is more than a file or a folder of files, such as the
        folder of a data set; empty for any other path."""
        return []

    def open(self, file: Path, column: str) -> FileTokens:
        """Return all tokens of a file, without reading them. `column` is that of the source."""
        raise NotImplementedError

    def open_sample(self, file: Path, column: str) -> FileTokens:
        """Return the same where `open` is quick, otherwise some of the tokens."""
        return self.open(file, column)

    def version(self, file: Path) -> list[int]:
        """Return numbers that change when the file does."""
        return file_version(file)


@dataclass(frozen=True)
class TokenFormat:
    """A registered format of files of tokens."""

    name: str
    options: type
    implementation: type[TokenReader]
    suffixes: tuple[str, ...]
    """Ends of the names of its files; empty: the format has to be named."""

    def recognises(self, file: Path) -> bool:
        """Return whether a file is of this format, by its name and its first bytes."""
        if not file.name.endswith(self.suffixes or ("\n",)):
            return False
        with file.open("rb") as stream:
            return self.implementation.recognises(file, stream.read(HEAD_BYTES))


@dataclass(frozen=True)
class TokenArray:
    """Tokens in memory, such as a sample."""

    tokens: Int[np.ndarray, " N"]

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.tokens)

    def read(self, start: int, count: int) -> Int[np.ndarray, " count"]:
        """Return `count` tokens from `start` on."""
        return self.tokens[start : start + count]

    def advise(self, start: int, count: int) -> None:
        """Do nothing: the tokens lie in memory."""


TOKEN_FORMATS: Registry[TokenFormat] = Registry("token format", "data.sources.NAME.format")


def register_token_format(
    name: str, options: type = NoOptions, suffixes: tuple[str, ...] = ()
) -> Callable[[Reader], Reader]:
    """Return the decorator that registers a subclass of `TokenReader` under `name`. Files with one of the
    suffixes are recognised; without a suffix, `data.sources.NAME.format` has to name the format."""

    def register(reader: Reader) -> Reader:
        TOKEN_FORMATS.add(TokenFormat(name, options, reader, suffixes))
        return reader

    return register


def configured_reader(name: str, options: dict[str, Any], key: str) -> TokenReader:
    """Return the reader of a format. Raises UserError for an unknown name or an invalid option of the source
    with this key."""
    if name not in TOKEN_FORMATS.entries:
        raise UserError(
            f"{key}.format={name} is not registered: {did_you_mean(name, TOKEN_FORMATS.entries)}"
            " (List a module of your own in `imports`.)"
        )
    format_node = TOKEN_FORMATS.lookup(ModuleConfig(name, options), key)
    return format_node.entry.implementation(format_node.options)


def check_integer(dtype: np.dtype) -> np.dtype:
    """Return the dtype. Raises TokenFileError if it is not one of integers."""
    if dtype.kind not in "iu":
        raise TokenFileError(f"holds {dtype}, which are no tokens. Write them as uint16 or uint32.")
    return dtype


def row_starts(length_R: Int[np.ndarray, " R"]) -> Int64[np.ndarray, " R"] | None:
    """Return the first token of each row; None if several rows are all of one length, as packed ones are:
    such a row is no document."""
    if len(length_R) > 1 and (length_R == length_R[0]).all():
        return None
    return np.cumsum(length_R, dtype=np.int64) - length_R
