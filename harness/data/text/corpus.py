"""From a config to batches: batch t is a pure function of (data config, data seed, t).

A window is T + 1 tokens; window w of a source starts at token w T of its training documents, so
that each token is predicted once an epoch. Sources are taken in the order of their names.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int32, UInt64

from harness.config.schema.run import DataConfig
from harness.data.order.mixture_schedule import Plan, plan_of, trained_on
from harness.data.order.permutation import key_of, permute
from harness.data.order.sampler import Sampler
from harness.data.text.describe_text import check_config, too_few, too_short
from harness.data.text.token_cache import Tokens, open_tokens
from harness.data.text.tokenizers import Codec, load


@dataclass(frozen=True)
class HeldOut:
    tokens_NT: Int32[np.ndarray, "N T+1"]
    bytes: int
    """UTF-8 bytes of the N x T predicted tokens; 0 where these are no text."""


@dataclass(frozen=True)
class Windows:
    """A stretch of tokens cut into windows."""

    tokens: np.ndarray
    length: int

    def __len__(self) -> int:
        return max(0, (len(self.tokens) - 1) // self.length)

    def __getitem__(self, window_B: Int[np.ndarray, " B"]) -> Int32[np.ndarray, "B T+1"]:
        start_B = np.asarray(window_B, np.int64) * self.length
        return self.tokens[start_B[:, None] + np.arange(self.length + 1)].astype(np.int32)


@dataclass(frozen=True)
class Domain:
    """A source, ready to read. `salt` tells its windows from those of any other tokens."""

    name: str
    train: Windows
    heldout: Windows
    salt: int

    @staticmethod
    def of(name: str, tokens: Tokens, length: int) -> Domain:
        salt = key_of("window", name, tokens.key, length)
        return Domain(name, Windows(tokens.train, length), Windows(tokens.heldout, length), salt)


@dataclass(frozen=True)
class Corpus:
    codec: Codec
    domains: tuple[Domain, ...]
    plan: Plan

    @property
    def sequence_length(self) -> int:
        return self.domains[0].train.length

    @property
    def row_length(self) -> int:
        return self.sequence_length + 1

    def sampler(self, batch: int, data_seed: int, mine_B: np.ndarray | None = None) -> Sampler:
        """`mine_B`: which rows to fill in; None: all. Raises UserError where a stage would last no step of
        this size."""
        return Sampler(self, batch, data_seed, self.plan.stages(batch), mine_B)

    def examples(
        self, source: int, data_seed: int, rank_B: np.ndarray, mine_B: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `sampler.Examples` says; one is a window."""
        domain = self.domains[source]
        epoch_B, index_B = np.divmod(rank_B, len(domain.train))
        key = key_of("order", data_seed, domain.name)
        window_B = permute(index_B, len(domain.train), key, epoch_B)
        return domain.train[window_B[mine_B]], window_B + np.uint64(domain.salt)

    def heldout(self, tokens: int) -> dict[str, HeldOut]:
        """The same windows for every run, as many in each domain: `tokens` over the sequence length,
        rounded down. More tokens hold the windows of fewer. Raises UserError where they do not suffice."""
        return {domain.name: self._heldout(domain, tokens) for domain in self.domains}

    def _heldout(self, domain: Domain, tokens: int) -> HeldOut:
        windows = domain.heldout
        wanted = tokens // windows.length
        if not 0 < wanted <= len(windows):
            raise too_short(domain.name, tokens, windows.length, len(windows))
        order_N = permute(np.arange(wanted, dtype=np.uint64), len(windows), key_of("heldout", domain.name))
        tokens_NT = windows[order_N]
        return HeldOut(tokens_NT, int(self.codec.byte_lengths_V[tokens_NT[:, 1:]].sum()))


def open_data(config: DataConfig) -> Corpus:
    """The corpus of a config, tokenised first where the cache has no tokens of it. Raises UserError."""
    sources, trained = check_config(config), trained_on(config)
    codec = load(config.tokenizer)
    domains = []
    for source in sources:
        tokens = open_tokens(source, codec, config.holdout)
        domain = Domain.of(source.name, tokens, config.sequence_length)
        if source.name in trained and not len(domain.train):
            raise too_few(source, len(tokens.train), config.sequence_length)
        domains.append(domain)
    return Corpus(codec, tuple(domains), plan_of(config))


def roll(previous_hex: str, ids_B: UInt64[np.ndarray, " B"]) -> str:
    """The rolling hash after a batch: sha256 of the hash before it ("" at the start) and the ids."""
    return hashlib.sha256(bytes.fromhex(previous_hex) + ids_B.astype("<u8").tobytes()).hexdigest()
