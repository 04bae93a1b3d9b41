"""Source of a run, of text or of tokens, as describing and opening see it."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

from harness.config.schema.data import DataConfig, SourceConfig
from harness.core.errors import UserError
from harness.core.hashing import hash_json
from harness.data.codecs.codec import Codec, UnknownCodec
from harness.data.codecs.tokenizer_file import load_codec
from harness.data.formats.open_token_files import (
    TokenSource,
    check_token_sample,
    content_of,
    digests_of,
    find_token_source,
    is_token_source,
    measure_token_files,
    open_token_files,
)
from harness.data.shards.encoding import Encoding
from harness.data.text.measure_source import measure_source
from harness.data.text.source_summary import file_digests, short_digests
from harness.data.text.token_cache import is_tokenised, open_tokens
from harness.data.text_sources.source import Source, find_source
from harness.data.text_sources.source_hash import (
    SMALL_BYTES,
    content_hash,
    is_hashed,
    source_bytes,
    state_hash,
)
from harness.data.text_sources.source_size import SourceSizes
from harness.data.text_sources.split import Split
from harness.data.text_sources.tokens_per_byte import tokens_per_byte
from harness.data.tokenizing.build_shards import BuildLimits
from harness.data.tokens.tokens import Tokens

SourceT = TypeVar("SourceT", Source, TokenSource)


class TrainingSource(ABC, Generic[SourceT]):
    """A named source of a run."""

    source: SourceT

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
class TextSource(TrainingSource[Source]):
    """A source of text."""

    source: Source
    encoding: Encoding
    validation: Source | None = None
    """Text that is held out instead of a share of the source."""

    def measure(self, trained: bool) -> SourceSizes:
        """Implement TrainingSource."""
        train, *validation = self.parts
        sizes = measure_source(train, self.encoding, trained)
        if not validation:
            return sizes
        heldout = measure_source(validation[0], self.encoding, trained=True)
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
        if self.source.remote or (self.validation and self.validation.remote):
            return self.fetched().open(trained, limits)
        if self.validation is not None:
            train, heldout = (open_tokens(part, self.encoding, limits) for part in self.parts)
            return Tokens(hash_json([train.key, heldout.key]), train.train, heldout.train, train.starts_D)
        if not is_hashed(self.source):  # whether a split leaves a side empty is known only now
            open_tokens(self.source, self.encoding, limits)
        split = self.measure(trained).split
        return open_tokens(self.source, self.encoding.with_split(split), limits)

    def digests(self) -> dict[str, str]:
        """Implement TrainingSource."""
        source = self.source.with_copies()
        return file_digests(source) if is_hashed(source) else {}

    def fetched(self) -> TextSource:
        """Return the source with all its files on this machine."""
        validation = self.validation.fetched() if self.validation else None
        return dataclasses.replace(self, source=self.source.fetched(), validation=validation)

    @property
    def parts(self) -> list[Source]:
        """Texts that are tokenised, each by itself."""
        return [part.with_copies() for part in (self.source, self.validation) if part]


@dataclass(frozen=True)
class TokenFilesSource(TrainingSource[TokenSource]):
    """A source of tokens, which are read in place."""

    source: TokenSource
    codec: Codec
    holdout: float

    def measure(self, trained: bool) -> SourceSizes:
        """Implement TrainingSource."""
        return measure_token_files(self.source, self.codec, self.holdout, index=False)

    def tokens_per_byte(self) -> float:
        """Implement TrainingSource: tokens are counted without a text."""
        check_token_sample(self.source, self.codec)
        return 0.0

    def content(self) -> str:
        """Implement TrainingSource."""
        if self.needs_build():
            parts = [self.source, *([self.source.validation] if self.source.validation else [])]
            return hash_json(
                ["state", [[str(file), *part.reader.version(file)] for part in parts for file in part.files]]
            )
        return content_of(self.source, self.codec)

    def needs_build(self) -> bool:
        """Implement TrainingSource: the index of a large source takes a reading of it."""
        return self.measure(trained=True).is_sampled

    def open(self, trained: bool, limits: BuildLimits | None = None) -> Tokens:
        """Implement TrainingSource."""
        return open_token_files(self.source, self.codec, self.holdout)

    def digests(self) -> dict[str, str]:
        """Implement TrainingSource."""
        return {} if self.needs_build() else short_digests(digests_of(self.source, self.codec))


def find_training_sources(config: DataConfig) -> list[TrainingSource]:
    """Return the sources of a config sorted by name. Raises UserError for what cannot be read."""
    codec = load_codec(config)
    nodes = sorted(config.sources.items())
    return [find_training_source(name, source, config, codec) for name, source in nodes]


def find_training_source(name: str, source: SourceConfig, config: DataConfig, codec: Codec) -> TrainingSource:
    """Return a source of text, or of tokens if its files hold tokens. Raises UserError."""
    if is_token_source(source):
        return TokenFilesSource(find_token_source(name, source), codec, config.holdout)
    text = find_source(name, source)
    if isinstance(codec, UnknownCodec):
        raise UserError(
            f"{text.key}.path={text.path} holds text, but data.tokenizer=none encodes none. Name a "
            "tokenizer, or a file of tokens."
        )
    if source.validation is None:
        return TextSource(text, Encoding(config.tokenizer, codec, config.holdout))
    validation = find_source(name, SourceConfig(source.validation, column=source.column))
    return TextSource(text, Encoding(config.tokenizer, codec, 0.0), validation)


def _is_large(source: Source) -> bool:
    return source_bytes(source) > SMALL_BYTES
