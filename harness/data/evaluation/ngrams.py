"""Search of the n-grams of a few windows in all tokens of a text.

Each n-gram has a 64-bit hash: a polynomial in mixed tokens, built by doubling, so that it costs some log2(n)
products a token. Flags for bits of the hashes that are sought sort out nearly every n-gram of the text with
one look-up; the rest is looked up by the whole hash and compared token by token.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64, UInt64

from harness.core.number_format import format_si
from harness.core.progress.report import report
from harness.data.tokens.token_sequence import TokenSequence

BLOCK_TOKENS = 2**15
"""Tokens that are hashed at a time: the arrays of a block stay in the cache of a core."""
FLAGS_PER_NGRAM = 16
"""Flags for each n-gram that is sought, or up to twice as many: two look-ups let 1 of 256 others pass."""
MAX_FLAG_BITS = 27
"""Binary digits of the number of flags at most: two times 128 MiB."""
_MIX, _BASE = 0x9E3779B97F4A7C15, 0x94D049BB133111EB


def ngram_hashes(tokens_N: Int[np.ndarray, " N"], length: int) -> UInt64[np.ndarray, " M"]:
    """Return the hash of the n-gram of `length` tokens that begins at each place."""
    power = tokens_N.astype(np.uint64)
    power += np.uint64(1)
    power *= np.uint64(_MIX)
    power ^= power >> np.uint64(32)
    hashes, hashed, width = power[:0], 0, 1
    while True:  # over the binary digits of the length; `power` has the n-grams of `width` tokens
        if length & width:
            hashes = _join(hashes, hashed, power, width) if hashed else power
            hashed += width
        if hashed == length:
            return hashes
        power, width = _join(power, width, power, width), 2 * width


def _join(first: np.ndarray, first_width: int, second: np.ndarray, second_width: int) -> np.ndarray:
    """Return the hashes of n-grams that consist of one of the first and the one of the second after it."""
    count = max(0, len(second) - first_width)
    joined = first[:count] * np.uint64(pow(_BASE, second_width, 2**64))
    joined += second[first_width:]
    return joined


@dataclass(frozen=True)
class NgramIndex:
    """N-grams of windows, to be found in a text."""

    length: int
    """Tokens of an n-gram."""
    token_W: Int32[np.ndarray, " W"]
    """Tokens of all windows, one after another."""
    hash_M: UInt64[np.ndarray, " M"]
    """Hashes of the distinct n-grams, rising."""
    place_M: Int64[np.ndarray, " M"]
    """Place of each distinct n-gram among the tokens."""
    ngram_NG: Int64[np.ndarray, "N G"]
    """Number of the distinct n-gram at each place of each window."""
    flags_2F: Bool[np.ndarray, "2 F"]
    """Flags that are set for the first, and for the next bits of each hash."""

    @classmethod
    def of_windows(cls, tokens_NT: Int32[np.ndarray, "N T"], length: int) -> NgramIndex:
        """Return the index of all n-grams of `length` tokens inside the windows."""
        num_windows, width = tokens_NT.shape
        hash_NG = np.stack([ngram_hashes(row, length) for row in tokens_NT])
        hash_M, first_M, ngram = np.unique(hash_NG, return_index=True, return_inverse=True)
        window_M, offset_M = np.divmod(first_M, hash_NG.shape[1])
        num_bits = min(MAX_FLAG_BITS, max(10, (FLAGS_PER_NGRAM * len(hash_M) - 1).bit_length()))
        flags_2F = np.zeros((2, 2**num_bits), bool)
        for flags, slot_M in zip(flags_2F, _slots(hash_M, num_bits), strict=True):
            flags[slot_M] = True
        place_M, ngram_NG = window_M * width + offset_M, ngram.reshape(num_windows, -1)
        return cls(length, tokens_NT.ravel(), hash_M, place_M, ngram_NG, flags_2F)

    def find_in(self, text: TokenSequence, name: str) -> Bool[np.ndarray, "N G"]:
        """Return whether the text holds the n-gram at each place of each window, on all cores. Memory does
        not grow with the text; `name` is for reports."""
        found_M = np.zeros(len(self.hash_M), bool)
        cores = len(os.sched_getaffinity(0))
        searches: deque[Future[None]] = deque()
        with ThreadPoolExecutor(cores) as pool:
            searched_tokens = 0
            for tokens_N in _overlapping_runs(text, self.length - 1):
                searches.append(pool.submit(self._mark, tokens_N, found_M))
                if len(searches) > 2 * cores:
                    searches.popleft().result()
                searched_tokens += len(tokens_N)
                report(
                    f"comparing sets with {name} ({format_si(len(text))}tokens)", searched_tokens, len(text)
                )
            for search in searches:
                search.result()
        return found_M[self.ngram_NG]

    def _mark(self, tokens_N: Int[np.ndarray, " N"], found_M: Bool[np.ndarray, " M"]) -> None:
        """Set the flag of each n-gram that is among these tokens."""
        for start in range(0, len(tokens_N) - self.length + 1, BLOCK_TOKENS):
            block = tokens_N[start : start + BLOCK_TOKENS + self.length - 1]
            hash_B = ngram_hashes(block, self.length)
            place_B = np.arange(len(hash_B))
            for flags, slots in zip(self.flags_2F, _slots(hash_B, _num_bits(self.flags_2F)), strict=True):
                place_B = place_B[flags[slots[place_B]]]
            self._compare(block, place_B, hash_B[place_B], found_M)

    def _compare(
        self, block: np.ndarray, place_B: np.ndarray, hash_B: np.ndarray, found_M: np.ndarray
    ) -> None:
        """Set the flag of each n-gram that lies at one of the places of a block."""
        ngram_B = np.minimum(np.searchsorted(self.hash_M, hash_B), len(self.hash_M) - 1)
        is_new_B = (self.hash_M[ngram_B] == hash_B) & ~found_M[ngram_B]
        ngram_B, place_B = ngram_B[is_new_B], place_B[is_new_B]
        offset_L = np.arange(self.length)
        sought_BL = self.token_W[self.place_M[ngram_B][:, None] + offset_L]
        is_equal_B = (block[place_B[:, None] + offset_L] == sought_BL).all(axis=1)
        found_M[ngram_B[is_equal_B]] = True


def _num_bits(flags_2F: np.ndarray) -> int:
    return flags_2F.shape[1].bit_length() - 1


def _slots(hash_B: UInt64[np.ndarray, " B"], num_bits: int) -> Iterator[Int64[np.ndarray, " B"]]:
    """Yield the number in the first bits of each hash, then that in the next bits."""
    yield (hash_B >> np.uint64(64 - num_bits)).view(np.int64)
    yield ((hash_B << np.uint64(num_bits)) >> np.uint64(64 - num_bits)).view(np.int64)


def _overlapping_runs(text: TokenSequence, overlap: int) -> Iterator[Int[np.ndarray, " N"]]:
    """Yield all tokens in order, some at a time; each run begins with the last tokens of the one before."""
    end = np.empty(0, np.uint8)
    for run in text.runs():
        joined = np.concatenate([end.astype(run.dtype), run])
        yield joined
        end = joined[max(0, len(joined) - overlap) :] if overlap else joined[:0]
