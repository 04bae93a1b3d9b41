"""Trainer of the tokenizer that ships as `bpe512.json`: `python -m harness.data.text.train_bpe [FILE]`.

It trains byte-level BPE on the training documents of pack:prose and pack:code. It was run once. Use the
committed file: another version of `tokenizers` may break ties in another way.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from harness.config.schema.data import DataConfig, SourceConfig
from harness.data.codecs.tokenizer_file import SHIPPED_TOKENIZER
from harness.data.documents.read_documents import END_OF_TEXT
from harness.data.text_sources.source import find_source
from harness.data.text_sources.split import is_heldout

VOCABULARY_SIZE = 512


def train_tokenizer(documents: Iterator[str]) -> Tokenizer:
    """Train a tokenizer of 256 bytes, the end-of-text token and 255 merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def training_documents() -> Iterator[str]:
    """Yield the training documents of pack:prose and pack:code."""
    for name in ("prose", "code"):
        source = find_source(name, SourceConfig(f"pack:{name}"))
        yield from (text for text in source.documents() if not is_heldout(text, DataConfig.holdout))


if __name__ == "__main__":
    train_tokenizer(training_documents()).save(sys.argv[1] if len(sys.argv) > 1 else str(SHIPPED_TOKENIZER))
