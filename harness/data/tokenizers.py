"""Text to tokens and back, with the byte length of every token (for bits per byte)."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers.pre_tokenizers import ByteLevel

from harness.config.errors import UserError, nearest
from harness.data.sources import END_OF_TEXT

SHIPPED = Path(__file__).parent / "bpe512.json"
ENDS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "[SEP]")
"""How tokenizers call the token that ends a document, the first found wins."""


class Codec(ABC):
    """One tokenizer."""

    vocabulary: int
    end: int
    """The token that ends a document. It stands for no byte of text."""
    byte_lengths_V: np.ndarray
    """int32 [V], UTF-8 bytes of the text that each token stands for."""
    fingerprint: str
    """Changes with whatever changes the tokens of a text."""

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint16 if self.vocabulary <= 2**16 else np.uint32)

    @abstractmethod
    def encode(self, documents: list[str]) -> list[np.ndarray]:
        """The tokens of each document, without an end-of-text token."""

    @abstractmethod
    def decode(self, tokens: np.ndarray) -> str:
        """The text of tokens; an end-of-text token vanishes."""


class ByteCodec(Codec):
    """Each byte is a token."""

    vocabulary = 257
    end = 256
    fingerprint = "byte"

    def __init__(self) -> None:
        self.byte_lengths_V = np.append(np.ones(256, np.int32), np.int32(0))

    def encode(self, documents: list[str]) -> list[np.ndarray]:
        return [np.frombuffer(text.encode(), np.uint8).astype(self.dtype) for text in documents]

    def decode(self, tokens: np.ndarray) -> str:
        tokens = np.asarray(tokens)
        return tokens[tokens < 256].astype(np.uint8).tobytes().decode(errors="replace")


class FileCodec(Codec):
    """A `tokenizers` JSON file."""

    def __init__(self, content: bytes) -> None:
        self.fingerprint = hashlib.sha256(content).hexdigest()
        self._tokenizer = tokenizers.Tokenizer.from_buffer(content)
        # A text that spells a special token is text: it must not end a document.
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        names = self._tokenizer.get_vocab(with_added_tokens=True)
        self.vocabulary = max(names.values()) + 1
        self.end = next(names[name] for name in ENDS if name in names)
        self.byte_lengths_V = self._byte_lengths(names)

    def encode(self, documents: list[str]) -> list[np.ndarray]:
        encoded = self._tokenizer.encode_batch_fast(documents, add_special_tokens=False)
        return [np.array(one.ids, self.dtype) for one in encoded]

    def decode(self, tokens: np.ndarray) -> str:
        return self._tokenizer.decode(np.asarray(tokens).tolist(), skip_special_tokens=True)

    def _byte_lengths(self, names: dict[str, int]) -> np.ndarray:
        """Byte-exact for byte-level tokens, whose letters are bytes, and for byte-fallback ones (`<0x0A>`);
        else the bytes of the token with the usual mark for a space read as a space."""
        special = {i for i, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}
        alphabet = set(ByteLevel.alphabet())
        byte_level = "ByteLevel" in str(self._tokenizer.decoder)
        lengths_V = np.zeros(self.vocabulary, np.int32)
        for name, i in names.items():
            if i in special:
                continue
            if byte_level and alphabet.issuperset(name):
                lengths_V[i] = len(name)
            elif name.startswith("<0x") and len(name) == 6:
                lengths_V[i] = 1
            else:
                lengths_V[i] = len(name.replace("\u2581", " ").encode())
        return lengths_V


def load(name: str) -> Codec:
    """The tokenizer of `data.tokenizer`: `byte`, `bpe512` or the path of a JSON file. Raises UserError."""
    if name == "byte":
        return ByteCodec()
    path = SHIPPED if name == "bpe512" else Path(name).expanduser()
    if not path.is_file():
        raise UserError(f"data.tokenizer={name} is no file: {nearest(name, ('byte', 'bpe512'))}")
    try:
        return FileCodec(path.read_bytes())
    except StopIteration:
        raise UserError(
            f"data.tokenizer={name} has no token that ends a document: add one of {', '.join(ENDS)}"
        ) from None
    except Exception as error:  # the library raises bare exceptions
        raise UserError(
            f"data.tokenizer={name} is no file of the tokenizers library ({error}): give a tokenizer.json"
        ) from None
