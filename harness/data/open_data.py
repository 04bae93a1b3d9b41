"""Interface to text and image data, chosen by `data.kind`."""

from __future__ import annotations

from harness.config.schema.run import Config, DataConfig, DataKind
from harness.core.errors import UserError
from harness.data.images import image_corpus
from harness.data.order.mixture_schedule import MixFacts, describe_mix
from harness.data.text import corpus, describe_text
from harness.data.text.describe_text import DataFacts


def describe_data(config: DataConfig, eval_tokens: int) -> DataFacts:
    """Return what is known about the data before training. Raises UserError."""
    describe = image_corpus.describe_images if config.kind is DataKind.images else describe_text.describe_text
    return describe(config, eval_tokens)


def open_data(config: DataConfig) -> corpus.TextCorpus | image_corpus.ImageCorpus:
    """Open the corpus of a config. Raises UserError."""
    return image_corpus.open_images(config) if config.kind is DataKind.images else corpus.open_text(config)


def check_same_content(config: Config, fingerprint: str, eval_fingerprint: str) -> None:
    """Raise UserError unless the data here are those with which the run was launched."""
    facts = describe_data(config.data, config.evaluation.tokens)
    if (facts.fingerprint, facts.eval_fingerprint) != (fingerprint, eval_fingerprint):
        files = ", ".join(f"data.sources.{name}.path={s.path}" for name, s in config.data.sources.items())
        raise UserError(
            f"{files} or data.tokenizer={config.data.tokenizer} is not what it was when the run was "
            "launched. Restore it, here and on every machine that trains."
        )


def describe_run_data(config: Config) -> tuple[DataFacts, MixFacts]:
    """Return the facts of a run's data: read from files, or assumed for a roster that is only planned."""
    if not config.roster.planned:
        return describe_data(config.data, config.evaluation.tokens), describe_mix(config.data, config.scale)
    assert config.roster.vocabulary is not None
    height, width, channels = config.roster.image or (0, 0, 0)
    image = (height, width, channels) if config.roster.image else None
    data = DataFacts(config.roster.vocabulary, None, "planned", "planned", (), image)
    return data, MixFacts(draws={}, mixes=[])
