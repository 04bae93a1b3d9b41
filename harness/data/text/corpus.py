"""Corpus of text: batch t is a pure function of (data config, data seed, t).

A window is T + 1 tokens. Window w of a source starts at token w T of its training documents, so each token
is predicted once per epoch. Sources are sorted by name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int32, UInt64

from harness.config.schema.run import DataConfig
from harness.data.order.mixture_schedule import MixSchedule, mix_schedule, trained_sources
from harness.data.order.permutation import make_key, permute
from harness.data.order.sampler import Corpus
from harness.data.text.codec import Codec
from harness.data.text.describe_text import check_text_config, num_heldout, too_few_tokens
from harness.data.text.tokenizers import load_codec
from harness.data.tokens.token_sequence import TokenSequence


@dataclass(frozen=True)
class HeldOut:
    """Held-out rows of one domain."""

    tokens_NT: Int32[np.ndarray, "N T+1"]
    bytes: int
    """UTF-8 bytes of the N x T predicted tokens; 0 if they are not text."""


@dataclass(frozen=True)
class Windows:
    """A sequence of tokens, cut into windows of length + 1 tokens."""

    tokens: TokenSequence
    length: int

    def __len__(self) -> int:
        return max(0, (len(self.tokens) - 1) // self.length)

    def __getitem__(self, window_B: Int[np.ndarray, " B"]) -> Int32[np.ndarray, "B T+1"]:
        start_B = np.asarray(window_B, np.int64) * self.length
        return self.tokens.windows(start_B, self.length + 1)


@dataclass(frozen=True)
class Domain:
    """A source that is ready to read. `salt` makes its example ids differ from all other tokens'."""

    name: str
    train: Windows
    heldout: Windows
    salt: int


@dataclass(frozen=True)
class TextCorpus(Corpus):
    """Tokens of all sources, with the schedule of their mixes."""

    codec: Codec
    domains: tuple[Domain, ...]
    schedule: MixSchedule

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
        """Implement `sampler.Corpus`; an example is a window."""
        domain = self.domains[source]
        epoch_B, index_B = np.divmod(rank_B, len(domain.train))
        key = make_key("order", data_seed, domain.name)
        window_B = permute(index_B, len(domain.train), key, epoch_B)
        return domain.train[window_B[local_rows_B]], window_B + np.uint64(domain.salt)

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
        salt = make_key("window", source.name, tokens.key, length)
        domains.append(Domain(source.name, train, heldout, salt))
    return TextCorpus(load_codec(config), tuple(domains), mix_schedule(config))


def update_example_hash(previous_hex: str, ids_B: UInt64[np.ndarray, " B"]) -> str:
    """Return the rolling hash after a batch: sha256 of the previous hash ("" at first) and the ids."""
    return hashlib.sha256(bytes.fromhex(previous_hex) + ids_B.astype("<u8").tobytes()).hexdigest()
