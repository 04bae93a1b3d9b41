"""Interface of tokenizers, and the tokenizer of bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np


class Codec(ABC):
    """A tokenizer."""

    vocabulary: int
    end_token: int
    """Token that ends a document. It stands for no bytes of text."""
    byte_lengths_V: np.ndarray
    """UTF-8 bytes of the text of each token, int32 [V]."""
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
