"""Tokenizers from files, with the byte length of every token (for bits per byte)."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import tokenizers

from harness.config.schema.data import DataConfig
from harness.core.errors import UserError
from harness.data.codecs.codec import ByteCodec, Codec, UnknownCodec
from harness.data.codecs.round_trip import check_all_bytes
from harness.data.codecs.tokenizer_names import tokenizer_file
from harness.data.documents.read_documents import END_OF_TEXT

SHIPPED_TOKENIZER = Path(__file__).parents[1] / "bpe512.json"
END_TOKENS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<\uff5cend\u2581of\u2581sentence\uff5c>")
"""Names of the token that ends a document, in order of preference."""
SPACE = "\u2581"
"""Character that SentencePiece writes for a space."""


class FileCodec(Codec):
    """Tokenizer from a `tokenizers` JSON file that preserves every byte of a text."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, end: int, fingerprint: str) -> None:
        # Special tokens spelled out in a text are text: they must not end a document.
        tokenizer.encode_special_tokens = True
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.post_processor = None  # it would add tokens that no document has
        self._tokenizer, self._added = tokenizer, tokenizer.get_added_tokens_decoder()
        self._byte_level = "ByteLevel" in str(tokenizer.decoder)
        self.end_token, self.fingerprint = end, fingerprint
        names = tokenizer.get_vocab(with_added_tokens=True)
        self.vocabulary = max(names.values()) + 1
        self.byte_lengths_V = np.zeros(self.vocabulary, np.int32)
        for name, token in names.items():
            self.byte_lengths_V[token] = self._byte_length(name, token)

    def encode(self, documents: list[str]) -> list[np.ndarray]:
        """Return the tokens of each document, without special tokens."""
        encoded = self._tokenizer.encode_batch_fast(documents, add_special_tokens=False)
        return [np.array(encoding.ids, self.dtype) for encoding in encoded]

    def decode(self, tokens: np.ndarray) -> str:
        """Return the text of tokens, without special tokens."""
        return self._tokenizer.decode(np.asarray(tokens).tolist(), skip_special_tokens=True)

    def token_name(self, token: int) -> str | None:
        """Return the name of a token in the file; None if there is no such token."""
        return self._tokenizer.id_to_token(token)

    def to_json(self) -> str:
        """Return the content of a `tokenizers` file that encodes as this codec does: without the truncation,
        padding and post-processor of the file that it came from."""
        return self._tokenizer.to_str(pretty=True)

    def _byte_length(self, name: str, token: int) -> int:
        if token in self._added:
            return 0 if self._added[token].special else len(name.encode())
        if self._byte_level:
            return len(name)  # one letter per byte
        if re.fullmatch("<0x[0-9A-F]{2}>", name):
            return 1
        return len(name.replace(SPACE, " ").encode())


def load_tokenizer(name: str) -> Codec:
    """Load the tokenizer of `data.tokenizer`: `byte`, `bpe512`, a JSON file or a folder with one. Raises
    UserError, also for one that loses part of a text."""
    if name == "byte":
        return ByteCodec()
    path = SHIPPED_TOKENIZER if name == "bpe512" else tokenizer_file(name)
    return _parse_tokenizer(name, path.read_bytes())


def load_codec(config: DataConfig) -> Codec:
    """Load the tokenizer of a data config: `none` stands for one that is not here. Raises UserError."""
    if config.tokenizer != "none":
        for name in ("vocabulary", "end_token"):
            if (value := getattr(config, name)) is not None:
                raise UserError(
                    f"data.{name}={value} is for data.tokenizer=none, but data.tokenizer={config.tokenizer}"
                    " has its own. Leave it out."
                )
        return load_tokenizer(config.tokenizer)
    if config.vocabulary is None:
        raise UserError(
            "data.tokenizer=none does not tell the number of tokens, so give it with data.vocabulary=..., and"
            " the token that ends a document with data.end_token=... if there is one."
        )
    if config.end_token is not None and not 0 <= config.end_token < config.vocabulary:
        raise UserError(
            f"data.end_token={config.end_token} is beyond data.vocabulary={config.vocabulary}. Correct one."
        )
    return UnknownCodec(config.vocabulary, config.end_token)


def _parse_tokenizer(name: str, content: bytes) -> Codec:
    try:
        tokenizer = tokenizers.Tokenizer.from_buffer(content)
    except Exception:  # the library documents no narrower class
        problem = "is not a file of the tokenizers library"
        raise UserError(f"data.tokenizer={name} {problem}. Give a tokenizer.json.") from None
    end = next((token for name in END_TOKENS if (token := tokenizer.token_to_id(name)) is not None), None)
    if end is None:
        raise UserError(f"data.tokenizer={name} has no token that ends a document: add {END_TOKENS[0]}")
    codec = FileCodec(tokenizer, end, hashlib.sha256(content).hexdigest())
    check_all_bytes(name, codec)
    return codec
