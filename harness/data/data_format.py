"""Registry of kinds of data: text, images, and data of a user's own (`data.kind`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from harness.config.schema.data import DataConfig
from harness.config.schema.run import ModuleConfig
from harness.config.socket_registry import Configured, NoOptions, Registry
from harness.core.errors import UserError, did_you_mean
from harness.data.images.image_corpus import ImageCorpus, describe_images, open_images
from harness.data.images.pca_features import PCAFeatures
from harness.data.order.sampler import Batch
from harness.data.own_data import describe_own, open_own
from harness.data.text.corpus import HeldOut, TextCorpus, open_text
from harness.data.text.describe_text import DataFacts, describe_text

Source = TypeVar("Source", bound=type)


class StepReader(Protocol):
    """Batches of one data seed."""

    def batch(self, t: int) -> Batch:
        """Return the batch of step t, counted from 0."""
        ...


class OpenData(Protocol):
    """Data that is ready to read."""

    def sampler(self, batch: int, data_seed: int, local_rows_B: np.ndarray | None = None) -> StepReader:
        """Return the batches of `batch` rows; `local_rows_B`: rows that this process feeds."""
        ...

    def heldout(self, tokens: int) -> dict[str, HeldOut]:
        """Return the held-out rows by domain."""
        ...

    def pca_features(self, tokens: int) -> PCAFeatures | None:
        """Return features that samples are compared in; None for data that nothing draws."""
        ...


@dataclass(frozen=True)
class DataFormat:
    """A registered kind of data."""

    name: str
    options: type
    implementation: Any
    """Class of the open data; of a user's own the class that makes rows."""
    describe: Callable[[DataConfig, int, Configured[DataFormat]], DataFacts]
    """Function from a config and the tokens to evaluate on to what is known before training."""
    open: Callable[[DataConfig, Configured[DataFormat]], OpenData]


FORMATS: Registry[DataFormat] = Registry("data", "data.kind")
FORMATS.add(
    DataFormat(
        "text",
        NoOptions,
        TextCorpus,
        lambda config, tokens, _: describe_text(config, tokens),
        lambda config, _: open_text(config),
    )
)
FORMATS.add(
    DataFormat(
        "images",
        NoOptions,
        ImageCorpus,
        lambda config, tokens, _: describe_images(config, tokens),
        lambda config, _: open_images(config),
    )
)


def register_data(name: str, options: type = NoOptions) -> Callable[[Source], Source]:
    """Return the decorator that registers a class of a user's own data under `name` (`own_data`)."""

    def register(source: Source) -> Source:
        FORMATS.add(DataFormat(name, options, source, describe_own, open_own))
        return source

    return register


def configured_format(config: DataConfig) -> Configured[DataFormat]:
    """Return the kind of data of a config. Raises UserError if none of that name is registered."""
    if config.kind not in FORMATS.entries:
        raise UserError(
            f"data.kind={config.kind} is not registered: {did_you_mean(config.kind, FORMATS.entries)}"
            " (List a module of your own in `imports`.)"
        )
    return FORMATS.lookup(ModuleConfig(config.kind, config.options), "data")
