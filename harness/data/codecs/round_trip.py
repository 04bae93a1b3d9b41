"""Trials of a tokenizer: whether every byte survives encoding and decoding.

Bits per byte are wrong if text is lost. Two things are accepted: a space that the tokenizer puts before a
text or takes away there (SentencePiece, `add_prefix_space`), and Unicode normalisation up to NFKC, since the
bytes of the normalised text are counted.
"""

from __future__ import annotations

import unicodedata

from harness.core.errors import UserError
from harness.data.codecs.codec import Codec

ROUND_TRIP_TEXT = "A probe:  two spaces, 1024\n\tand caf\u00e9, \u6f22\u5b57, \U0001f680."
ALL_BYTES = [
    *map(chr, range(0x20, 0x7F)),
    *map(chr, (*range(0x20), *range(0x7F, 0x800))),
    *(chr(lead << 12 | 0x955) for lead in range(0x10) if lead != 0xD),
    "\ud5ff",
    *(chr(plane << 16 | 0xF555) for plane in (0x1, 0x4, 0x8, 0xC, 0x10)),
]
"""Characters that together use every byte of UTF-8; printable ASCII first, to be named in messages."""
SHOWN = 12
"""Characters of a text that are shown in a message."""


def find_loss(codec: Codec, text: str) -> str:
    """Return what is lost of a text, such as "'q' comes back as ''"; empty if nothing is."""
    (tokens,) = codec.encode([text])
    text_after = codec.decode(tokens)
    before, after = (_normalized(version) for version in (text, text_after))
    if before != after:
        pairs = zip(before, after, strict=False)
        first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(before), len(after)))
        part = slice(first, first + SHOWN)
        return f"{before[part]!a} comes back as {after[part]!a}"
    num_counted, num_bytes = int(codec.byte_lengths_V[tokens].sum()), len(text_after.encode())
    return "" if num_counted - num_bytes in (0, 1) else f"{num_counted} bytes are counted for {num_bytes}"


def _normalized(text: str) -> str:
    return unicodedata.normalize("NFKC", text).removeprefix(" ")


def check_all_bytes(name: str, codec: Codec) -> None:
    """Raise UserError if `data.tokenizer={name}` loses a byte or part of a short text."""
    texts = [f"a{char}b" if char.isspace() else char for char in ALL_BYTES]
    loss = find_loss(codec, ROUND_TRIP_TEXT) or find_loss(codec, "".join(texts))
    if not loss:
        return
    losses = [loss for text in texts if (loss := find_loss(codec, text))]
    count = f" (and {len(losses) - 1} more of {len(texts)} characters)" if len(losses) > 1 else ""
    raise loss_error(name, f"{losses[0]}{count}" if losses else loss)


def loss_error(name: str, loss: str) -> UserError:
    """Return the error for a tokenizer that loses part of a text."""
    return UserError(
        f"data.tokenizer={name} loses part of a text, so bits per byte would be wrong: {loss}. "
        "Use a byte-level tokenizer with all 256 bytes, or one with byte fallback."
    )
