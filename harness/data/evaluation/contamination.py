"""Windows of a validation set that stand in the training text, by the n-grams that both have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int32

from harness.core.cache.cache_dir import WAY_OUT
from harness.core.cache.cache_entries import CacheEntry
from harness.core.file_locks import host_dir
from harness.core.hashing import hash_json
from harness.core.progress.waiting import hold_lock
from harness.data.evaluation.ngrams import NgramIndex
from harness.data.tokens.token_sequence import TokenSequence

VERSION = 1
"""Version of the search. Raise it when it comes to find other n-grams, or leaves out other windows."""
DIRTY = 0.8
"""Share of the tokens of a window from which on it is left out, if they are in n-grams of the training text.

Llama 2 counts tokens so, and calls a sample dirty from this share on (arXiv:2307.09288, A.6); PaLM takes 70 %
of the n-grams (arXiv:2204.02311, section 8). GPT-3 takes a single n-gram, but of 13 words (arXiv:2005.14165,
appendix C): of windows of 128 tokens of the shipped prose, all of it held out, 63 % share an n-gram of 13
tokens of bpe512 with the training text, 32 % in a fifth of their tokens and .7 % in four fifths. How many
share any is told beside."""


@dataclass(frozen=True)
class TrainingText:
    """Training tokens of a source, and the key that names them."""

    name: str
    key: str
    tokens: TokenSequence


@dataclass(frozen=True)
class Candidates:
    """Windows of a set that may be evaluated, in their order."""

    key: str
    """Hash of all that the windows depend on, and their number."""
    tokens_NT: Int32[np.ndarray, "N T+1"]


def shares_in_text(
    candidates: Candidates, texts: Sequence[TrainingText], length: int, limit: float
) -> Float[np.ndarray, " N"] | None:
    """Return the share of the tokens of each window that are in n-grams of `length` tokens of the texts. Each
    text is searched once, by one process of a host. None if texts of more than `limit` tokens together were
    not searched yet."""
    entries = [_found_entry(candidates, text, length) for text in texts]
    stored = [entry.read() for entry in entries]
    missing = [len(text.tokens) for text, content in zip(texts, stored, strict=True) if content is None]
    if sum(missing) > limit:
        return None
    found_NG = np.zeros((len(candidates.tokens_NT), candidates.tokens_NT.shape[1] - length + 1), bool)
    for entry, text, content in zip(entries, texts, stored, strict=True):
        content = content if content is not None else _search(entry, candidates, text, length)
        flags = np.unpackbits(np.frombuffer(content, np.uint8), count=found_NG.size)
        found_NG |= flags.astype(bool).reshape(found_NG.shape)
    return _covered(found_NG, length).mean(axis=1)


def _found_entry(candidates: Candidates, text: TrainingText, length: int) -> CacheEntry:
    return CacheEntry("surveys", "ngrams", [VERSION, candidates.key, text.key, length])


def _search(entry: CacheEntry, candidates: Candidates, text: TrainingText, length: int) -> bytes:
    """Return the flags of the n-grams that are found, packed as they are stored."""
    lock = host_dir() / f"{hash_json(entry.inputs)}.lock"
    with hold_lock(lock, f"compares a validation set with {text.name}", WAY_OUT):
        content = entry.read()
        if content is None:
            found_NG = NgramIndex.of_windows(candidates.tokens_NT, length).find_in(text.tokens, text.name)
            content = np.packbits(found_NG).tobytes()
            entry.write(content)
        return content


def _covered(found_NG: Bool[np.ndarray, "N G"], length: int) -> Bool[np.ndarray, "N T+1"]:
    """Return which tokens are in an n-gram that was found."""
    edges_NT = np.zeros((len(found_NG), found_NG.shape[1] + length), np.int32)
    edges_NT[:, : found_NG.shape[1]] += found_NG
    edges_NT[:, length:] -= found_NG
    return np.cumsum(edges_NT, axis=1)[:, :-1] > 0
