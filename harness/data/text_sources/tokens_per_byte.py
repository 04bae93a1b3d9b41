"""Tokens of a byte of text, from a sample of a source that a tokenizer has to preserve."""

from __future__ import annotations

from harness.data.codecs.codec import Codec
from harness.data.codecs.round_trip import find_loss, loss_error
from harness.data.text_sources.source import SAMPLE_CHARACTERS, SAMPLE_FILES, Source
from harness.data.text_sources.source_hash import cached, content_hash, is_hashed, state_hash
from harness.data.text_sources.source_sample import sample_source


def tokens_per_byte(name: str, codec: Codec, source: Source) -> float:
    """Return the number of tokens per UTF-8 byte on a sample of a source, which is read once. Raises
    UserError if `data.tokenizer={name}` loses part of the sample."""
    content = content_hash(source) if is_hashed(source) else state_hash(source)
    key = ["sample", content, codec.fingerprint, SAMPLE_FILES, SAMPLE_CHARACTERS]
    trial = cached("sample", key, lambda: _try_sample(codec, source))
    if trial["loss"]:
        raise loss_error(name, f"in {source.key}.path={source.path}, {trial['loss']}")
    return trial["tokens"] / max(1, trial["bytes"])


def _try_sample(codec: Codec, source: Source) -> dict[str, int | str]:
    texts = [*sample_source(source).texts]
    loss = next((loss for text in texts if (loss := find_loss(codec, text))), "")
    return {
        "loss": loss,
        "tokens": sum(len(tokens) for tokens in codec.encode(texts)),
        "bytes": sum(len(text.encode()) for text in texts),
    }
