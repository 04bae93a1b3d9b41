"""Source of a run, of text or of tokens, as describing and opening see it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from harness.config.schema.run import DataConfig, SourceConfig
from harness.core.hashing import hash_json
from harness.data.shards.build_shards import BuildLimits
from harness.data.shards.encode_piece import Encoding
from harness.data.text.codec import Codec
from harness.data.text.source_hash import (
    SMALL_BYTES,
    content_hash,
    is_hashed,
    source_bytes,
    state_hash,
)
from harness.data.text.source_sizes import SourceSizes, measure_source
from harness.data.text.source_summary import file_digests
from harness.data.text.sources import Source, find_source
from harness.data.text.split import Split
from harness.data.text.token_cache import is_tokenised, open_tokens
from harness.data.text.tokenizer_checks import tokens_per_byte
from harness.data.text.tokenizers import load_codec
from harness.data.tokens.tokens import Tokens


class TrainingSource(ABC):
    """A named source of a run."""

    source: Source

    @property
    def name(self) -> str:
        """Name of the source."""
        return self.source.name

    @property
    def where(self) -> str:
        """Config key of the files, and its value."""
        return f"{self.source.key}.path={self.source.path}"

    @abstractmethod
    def measure(self, trained: bool) -> SourceSizes:
        """Return the sizes of both splits; an estimate, at once, if nobody has read the source yet.
        `trained`: the source is not only evaluated. Raises UserError for bad content."""

    @abstractmethod
    def tokens_per_byte(self) -> float:
        """Return the tokens of a byte of text in a sample, which is checked. Raises UserError."""

    @abstractmethod
    def content(self) -> str:
        """Return a hash of all that is read; of the files' sizes and times if it is not read yet."""

    @abstractmethod
    def needs_build(self) -> bool:
        """Return whether opening the source takes long, since it is not read yet."""

    @abstractmethod
    def open(self, trained: bool, limits: BuildLimits | None = None) -> Tokens:
        """Return the tokens, building what is not in the cache. Raises UserError."""

    @abstractmethod
    def digests(self) -> dict[str, str]:
        """Return the first digits of each file's hash by its path in the source, if there are few files and
        they are read."""


@dataclass(frozen=True)
class TextSource(TrainingSource):
    """A source of text."""

    source: Source
    encoding: Encoding
    validation: Source | None = None
    """Text that is held out instead of a share of the source."""

    def measure(self, trained: bool) -> SourceSizes:
        """Implement TrainingSource."""
        sizes = measure_source(self.source, self.encoding, trained)
        if self.validation is None:
            return sizes
        heldout = measure_source(self.validation, self.encoding, trained=True)
        is_sampled = sizes.is_sampled or heldout.is_sampled
        return SourceSizes(sizes.train, heldout.train, Split.validation, is_sampled)

    def tokens_per_byte(self) -> float:
        """Implement TrainingSource."""
        return tokens_per_byte(self.encoding.tokenizer, self.encoding.codec, self.source)

    def content(self) -> str:
        """Implement TrainingSource."""
        contents = [content_hash(part) if is_hashed(part) else state_hash(part) for part in self.parts]
        return contents[0] if len(contents) == 1 else hash_json(contents)

    def needs_build(self) -> bool:
        """Implement TrainingSource."""
        return any(_is_large(part) and not is_tokenised(part, self.encoding) for part in self.parts)

    def open(self, trained: bool, limits: BuildLimits | None = None) -> Tokens:
        """Implement TrainingSource."""
        if self.validation is not None:
            train, heldout = (open_tokens(part, self.encoding, limits) for part in self.parts)
            return Tokens(hash_json([train.key, heldout.key]), train.train, heldout.train, train.starts_D)
        if not is_hashed(self.source):  # whether a split leaves a side empty is known only now
            open_tokens(self.source, self.encoding, limits)
        split = self.measure(trained).split
        return open_tokens(self.source, self.encoding.with_split(split), limits)

    def digests(self) -> dict[str, str]:
        """Implement TrainingSource."""
        return file_digests(self.source) if is_hashed(self.source) else {}

    @property
    def parts(self) -> list[Source]:
        """Texts that are tokenised, each by itself."""
        return [self.source, *([self.validation] if self.validation else [])]


def find_training_sources(config: DataConfig) -> list[TrainingSource]:
    """Return the sources of a config sorted by name. Raises UserError for what cannot be read."""
    codec = load_codec(config)
    nodes = sorted(config.sources.items())
    return [find_training_source(name, source, config, codec) for name, source in nodes]


def find_training_source(name: str, source: SourceConfig, config: DataConfig, codec: Codec) -> TrainingSource:
    """Return a source of text, or of tokens if its files hold tokens. Raises UserError."""
    text = find_source(name, source)
    if source.validation is None:
        return TextSource(text, Encoding(config.tokenizer, codec, config.holdout))
    validation = find_source(name, SourceConfig(source.validation, column=source.column))
    return TextSource(text, Encoding(config.tokenizer, codec, 0.0), validation)


def _is_large(source: Source) -> bool:
    return source_bytes(source) > SMALL_BYTES
