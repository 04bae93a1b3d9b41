"""Text or images, by `data.kind`: one way in for whoever trains, whatever is read."""

from __future__ import annotations

from harness.config.schema import Content, DataConfig
from harness.data import corpus, facts, images


def describe_data(config: DataConfig, eval_tokens: int) -> facts.DataFacts:
    """What is known of the data before any of it is trained on. Raises UserError."""
    describe = images.describe_images if config.kind is Content.images else facts.describe_data
    return describe(config, eval_tokens)


def open_data(config: DataConfig) -> corpus.Corpus | images.ImageCorpus:
    """The corpus of a config. Raises UserError."""
    return images.open_images(config) if config.kind is Content.images else corpus.open_data(config)
