"""Interface to the data of a config, by its kind (`data_format`)."""

from __future__ import annotations

from harness.config.schema.run import Config, DataConfig
from harness.core.errors import UserError
from harness.data.data_format import OpenData, configured_format
from harness.data.order.mixture_schedule import MixFacts, describe_mix
from harness.data.text.describe_text import DataFacts


def describe_data(config: DataConfig, eval_tokens: int) -> DataFacts:
    """Return what is known about the data before training. Raises UserError."""
    kind = configured_format(config)
    return kind.entry.describe(config, eval_tokens, kind)


def open_data(config: DataConfig) -> OpenData:
    """Open the data of a config. Raises UserError."""
    kind = configured_format(config)
    return kind.entry.open(config, kind)


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
        facts = describe_data(config.data, config.evaluation.tokens)
        # Data of a user's own have no sources to mix.
        return facts, describe_mix(config.data, config.scale) if facts.row is None else MixFacts({}, [])
    assert config.roster.vocabulary is not None
    height, width, channels = config.roster.image or (0, 0, 0)
    image = (height, width, channels) if config.roster.image else None
    data = DataFacts(config.roster.vocabulary, None, "planned", "planned", (), image)
    return data, MixFacts(draws={}, mixes=[])
