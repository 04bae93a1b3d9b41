"""Hash of a file by leaves, so that many processes can hash one file.

The hash of a file of one leaf is its sha256. Of a larger one it is the sha256 of the hashes of its leaves.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from harness.core.progress.report import report
from harness.data.documents.split_text import LEAF

LEAF_BYTES = LEAF
"""Bytes of a leaf. A document that is cut because nothing separates it is cut at leaves, too."""
_READ_BYTES = 2**22


def num_leaves(size: int) -> int:
    """Return the number of leaves of a file of `size` bytes; at least 1."""
    return max(1, -(-size // LEAF_BYTES))


def leaf_hash(file: Path, leaf: int) -> str:
    """Return the sha256 of the bytes of one leaf, 64 hex digits."""
    digest, left = hashlib.sha256(), LEAF_BYTES
    with file.open("rb", buffering=0) as stream:
        stream.seek(leaf * LEAF_BYTES)
        while left and (part := stream.read(min(left, _READ_BYTES))):
            digest.update(part)
            left -= len(part)
    return digest.hexdigest()


def join_leaves(leaves: Sequence[str]) -> str:
    """Return the hash of a file from those of all its leaves in order, 64 hex digits."""
    if len(leaves) == 1:
        return leaves[0]
    return hashlib.sha256(b"leaves" + b"".join(map(bytes.fromhex, leaves))).hexdigest()


def file_tree_hash(file: Path) -> str:
    """Return the hash of a file, which is read."""
    hashes, count = [], num_leaves(os.path.getsize(file))
    for leaf in range(count):
        hashes.append(leaf_hash(file, leaf))
        report(f"hashing {file.name}", leaf + 1, count)
    return join_leaves(hashes)
