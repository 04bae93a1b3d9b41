"""Interface of tokenizers, the tokenizer of bytes, and one that is not here."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from harness.core.errors import UserError
from harness.core.hashing import hash_json


class Codec(ABC):
    """A tokenizer."""

    vocabulary: int
    end_token: int | None
    """Token that ends a document. It stands for no bytes of text. None: there is none."""
    byte_lengths_V: np.ndarray
    """UTF-8 bytes of the text of each token, int32 [V]; all 0 if they are not known."""
    fingerprint: str
    """Hash that changes with the tokens of any text."""

    @property
    def dtype(self) -> np.dtype:
        """Smallest unsigned integer type that holds every token."""
        return np.dtype(np.uint16 if self.vocabulary <= 2**16 else np.uint32)

    @abstractmethod
    def encode(self, documents: list[str]) -> list[np.ndarray]:
        """Return the tokens of each document, without an end-of-text token."""

    @abstractmethod
    def decode(self, tokens: np.ndarray) -> str:
        """Return the text of tokens, without end-of-text tokens."""


class ByteCodec(Codec):
    """Tokenizer with one token per byte."""

    vocabulary = 257
    end_token = 256
    fingerprint = "byte"
    byte_lengths_V = np.append(np.ones(256, np.int32), np.int32(0))

    def encode(self, documents: list[str]) -> list[np.ndarray]:
        """Return the UTF-8 bytes of each document."""
        return [np.frombuffer(text.encode(), np.uint8).astype(self.dtype) for text in documents]

    def decode(self, tokens: np.ndarray) -> str:
        """Return the text of bytes; invalid UTF-8 is replaced."""
        tokens = np.asarray(tokens)
        return tokens[tokens < 256].astype(np.uint8).tobytes().decode(errors="replace")


class UnknownCodec(Codec):
    """Tokenizer that is not here (`data.tokenizer=none`). It made the files of tokens; only its number of
    tokens and its end token are known. So bits per byte are not."""

    def __init__(self, vocabulary: int, end_token: int | None) -> None:
        self.vocabulary, self.end_token = vocabulary, end_token
        self.fingerprint = hash_json(["none", vocabulary, end_token])
        self.byte_lengths_V = np.zeros(vocabulary, np.int32)

    def encode(self, documents: list[str]) -> list[np.ndarray]:
        """Raise UserError: text cannot be encoded."""
        raise self._error()

    def decode(self, tokens: np.ndarray) -> str:
        """Raise UserError: tokens cannot be decoded."""
        raise self._error()

    def _error(self) -> UserError:
        return UserError(
            "data.tokenizer=none is for files of tokens, so text can be neither encoded nor decoded: set"
            " data.tokenizer to the tokenizer that made the tokens."
        )
