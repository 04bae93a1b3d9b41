"""Text or images, by `data.kind`: one way in for whoever trains, whatever is read."""

from __future__ import annotations

from harness.config.schema.run import Content, DataConfig
from harness.data.images import image_corpus
from harness.data.text import corpus, describe_text


def describe_data(config: DataConfig, eval_tokens: int) -> describe_text.DataFacts:
    """What is known of the data before any of it is trained on. Raises UserError."""
    describe = image_corpus.describe_images if config.kind is Content.images else describe_text.describe_data
    return describe(config, eval_tokens)


def open_data(config: DataConfig) -> corpus.Corpus | image_corpus.ImageCorpus:
    """The corpus of a config. Raises UserError."""
    return image_corpus.open_images(config) if config.kind is Content.images else corpus.open_data(config)
