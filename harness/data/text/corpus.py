"""Corpus of text: batch t is a pure function of (data config, data seed, t).

A window is T + 1 tokens. Window w of a source starts at token w T of its training documents, so each token
is predicted once per epoch. Packed rows hold whole documents instead. Sources are sorted by name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Int32, UInt64

from harness.config.schema.data import DataConfig, Order, Packing
from harness.data.codecs.codec import Codec
from harness.data.codecs.tokenizer_file import load_codec
from harness.data.order.curriculum import SortedExamples
from harness.data.order.example_order import OrderSpec, examples_at
from harness.data.order.mixture_schedule import (
    MixSchedule,
    draws_by_horizon,
    mix_schedule,
    trained_sources,
)
from harness.data.order.permutation import make_key, permute
from harness.data.order.sampler import Corpus, Sampler
from harness.data.order.training_rows import TrainingRows, Windows, open_rows
from harness.data.text.describe_text import check_text_config, num_heldout, too_few_tokens


@dataclass(frozen=True)
class HeldOut:
    """Held-out rows of one domain."""

    tokens_NT: Int32[np.ndarray, "N T+1"]
    bytes: int
    """UTF-8 bytes of the N x T predicted tokens; 0 if they are not text."""


@dataclass(frozen=True)
class Domain:
    """A source that is ready to read. `salt` makes its example ids differ from all other tokens'."""

    name: str
    train: TrainingRows
    heldout: Windows
    salt: int


@dataclass(frozen=True)
class TextCorpus(Corpus):
    """Tokens of all sources, with the schedule of their mixes."""

    codec: Codec
    domains: tuple[Domain, ...]
    schedule: MixSchedule
    config: DataConfig
    sorted_examples: dict[int, SortedExamples] = field(default_factory=dict)
    """Examples of each source that a run reads, by length; only the corpus of a curriculum's sampler has
    them."""

    @property
    def sequence_length(self) -> int:
        """Number of predicted tokens of a row."""
        return self.domains[0].train.length

    @property
    def row_length(self) -> int:
        """Number of tokens of a row."""
        return self.sequence_length + 1

    def examples(
        self, source: int, data_seed: int, rank_B: np.ndarray, local_rows_B: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Implement `sampler.Corpus`; an example is a row of the source."""
        domain = self.domains[source]
        epoch_B, index_B = np.divmod(rank_B, len(domain.train))
        key = _order_key(domain, data_seed)
        row_B = examples_at(OrderSpec.of(self.config), index_B, len(domain.train), key, epoch_B)
        if source in self.sorted_examples:
            self.sorted_examples[source].replace_first(row_B, rank_B)
        return domain.train[row_B[local_rows_B]], row_B + np.uint64(domain.salt)

    def sampler(self, batch: int, data_seed: int, local_rows_B: np.ndarray | None = None) -> Sampler:
        """Return the sampler of `batch` rows per step; a curriculum sorts the run's examples here. Raises
        UserError for a stage below one step."""
        if self.config.order is not Order.length:
            return super().sampler(batch, data_seed, local_rows_B)
        draws = draws_by_horizon(self.config, batch)
        examples = {
            source: SortedExamples.of_first(
                count, len(domain.train), _order_key(domain, data_seed), domain.train.document_lengths
            )
            for source, (domain, count) in enumerate(zip(self.domains, draws, strict=True))
            if count
        }
        return Corpus.sampler(replace(self, sorted_examples=examples), batch, data_seed, local_rows_B)

    def heldout(self, tokens: int) -> dict[str, HeldOut]:
        """Return the same windows for every run: `tokens` over the sequence length, rounded down, per domain.
        More tokens include the windows of fewer. Raises UserError if a domain has fewer windows."""
        examples = {}
        for domain in self.domains:
            name, windows = domain.name, domain.heldout
            count = num_heldout(name, tokens, windows.length, len(windows))
            order_N = permute(np.arange(count, dtype=np.uint64), len(windows), make_key("heldout", name))
            tokens_NT = windows[order_N]
            num_bytes = int(self.codec.byte_lengths_V[tokens_NT[:, 1:]].sum())
            examples[name] = HeldOut(tokens_NT, num_bytes)
        return examples


def open_text(config: DataConfig) -> TextCorpus:
    """Open the corpus of a config, tokenising sources that are not in the cache. Raises UserError."""
    sources, trained = check_text_config(config), trained_sources(config)
    length, domains = config.sequence_length, list[Domain]()
    for source in sources:
        is_trained = source.name in trained
        tokens = source.open(is_trained)
        train, heldout = Windows(tokens.train, length), Windows(tokens.heldout, length)
        if is_trained and not len(train):
            raise too_few_tokens(source, len(tokens.train), length)
        rows = open_rows(tokens, config, source.where) if is_trained else train
        packing = [] if config.packing is Packing.concatenate else [config.packing.value]
        salt = make_key("window", source.name, tokens.key, length, *packing)
        domains.append(Domain(source.name, rows, heldout, salt))
    return TextCorpus(load_codec(config), tuple(domains), mix_schedule(config), config)


def _order_key(domain: Domain, data_seed: int) -> int:
    return make_key("order", data_seed, domain.name)


def update_example_hash(previous_hex: str, ids_B: UInt64[np.ndarray, " B"]) -> str:
    """Return the rolling hash after a batch: sha256 of the previous hash ("" at first) and the ids."""
    return hashlib.sha256(bytes.fromhex(previous_hex) + ids_B.astype("<u8").tobytes()).hexdigest()
