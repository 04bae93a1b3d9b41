"""Keyed permutation of 0..n-1 in constant memory, for the order in which examples are read.

It is a generalised Feistel network over a x b >= n (Black & Rogaway 2002, "Ciphers with Arbitrary Finite
Domains"). With a and b near the root of n, the network's domain is hardly larger than n, so cycle walking
(apply again to results outside 0..n-1) is rare.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np

ROUNDS = 8
_GOLDEN = 0x9E3779B97F4A7C15


def make_key(*parts: object) -> int:
    """Return a 64-bit key of names and numbers, the same on every machine and in every process."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def permute(index: np.ndarray, n: int, key: int, epoch: np.ndarray | int = 0) -> np.ndarray:
    """Permute indices (uint64, below n). Each `epoch` is another permutation under the same key."""
    a = math.isqrt(n - 1) + 1
    b = -(-n // a)
    index = np.asarray(index, np.uint64)
    key_B = np.broadcast_to(_mix(np.atleast_1d(np.asarray(epoch, np.uint64)) + np.uint64(key)), index.shape)
    out = _feistel(index, a, b, key_B)
    while (outside := out >= n).any():
        out[outside] = _feistel(out[outside], a, b, key_B[outside])
    return out


def _feistel(index: np.ndarray, a: int, b: int, key_B: np.ndarray) -> np.ndarray:
    """Rotate each half in turn by a hash of the other: a bijection for any hash."""
    left, right = np.divmod(index, np.uint64(b))
    for i in range(0, ROUNDS, 2):
        left = (left + _hash(right, key_B, i) % np.uint64(a)) % np.uint64(a)
        right = (right + _hash(left, key_B, i + 1) % np.uint64(b)) % np.uint64(b)
    return left * np.uint64(b) + right


def _hash(half: np.ndarray, key_B: np.ndarray, i: int) -> np.ndarray:
    return _mix(half ^ _mix(key_B + np.uint64((i + 1) * _GOLDEN % 2**64)))


def _mix(x: np.ndarray) -> np.ndarray:
    """Apply the finaliser of splitmix64 (Steele, Lea & Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
