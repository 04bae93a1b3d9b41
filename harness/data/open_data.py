"""Interface to the data of a config, by its kind (`data_format`)."""

from __future__ import annotations

from harness.config.schema.data import DataConfig
from harness.config.schema.run import Config
from harness.core.errors import UserError
from harness.data.data_format import OpenData, configured_format
from harness.data.evaluation.validation_sets import heldout_sets, with_sets
from harness.data.order.mixture_schedule import MixFacts, describe_mix
from harness.data.text.corpus import HeldOut
from harness.data.text.describe_text import DataFacts


def describe_data(config: DataConfig, eval_tokens: int) -> DataFacts:
    """Return what is known about the data before training. Raises UserError."""
    kind = configured_format(config)
    return kind.entry.describe(config, eval_tokens, kind)


def open_data(config: DataConfig) -> OpenData:
    """Open the data of a config. Raises UserError."""
    kind = configured_format(config)
    return kind.entry.open(config, kind)


def describe_evaluated(config: Config) -> DataFacts:
    """Return what is known about the data and the validation sets of a run. Raises UserError."""
    return with_sets(describe_data(config.data, config.evaluation.tokens), config)


def heldout_rows(config: Config, data: OpenData) -> dict[str, HeldOut]:
    """Return the rows of every domain that a run is evaluated on: of its data, and of validation sets. Raises
    UserError."""
    return data.heldout(config.evaluation.tokens) | heldout_sets(config)


def check_same_content(config: Config, fingerprint: str, eval_fingerprint: str) -> None:
    """Raise UserError unless the data here are those with which the run was launched."""
    facts = describe_evaluated(config)
    if (facts.fingerprint, facts.eval_fingerprint) != (fingerprint, eval_fingerprint):
        keys = {f"data.sources.{name}": source.path for name, source in config.data.sources.items()}
        keys |= {f"evaluation.sets.{name}": node.path for name, node in config.evaluation.sets.items()}
        files = ", ".join(f"{key}.path={path}" for key, path in keys.items())
        raise UserError(
            f"{files} or data.tokenizer={config.data.tokenizer} is not what it was when the run was "
            "launched. Restore it, here and on every machine that trains."
        )


def describe_run_data(config: Config) -> tuple[DataFacts, MixFacts]:
    """Return the facts of a run's data: read from files, or assumed for a roster that is only planned."""
    if not config.roster.planned:
        facts = describe_evaluated(config)
        # Data of a user's own have no sources to mix.
        return facts, describe_mix(config.data, config.scale) if facts.row is None else MixFacts({}, [])
    assert config.roster.vocabulary is not None
    height, width, channels = config.roster.image or (0, 0, 0)
    image = (height, width, channels) if config.roster.image else None
    data = DataFacts(config.roster.vocabulary, None, "planned", "planned", (), image)
    return data, MixFacts(draws={}, mixes=[])
