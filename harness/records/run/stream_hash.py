"""Hash of the examples of a run one by one, in the order in which they were read.

Unlike the rolling hash over batches it does not depend on the batch size, so that two runs with other batches
can be shown to have read the same stream. It is kept at the ends of equal ranges of examples: of two runs of
unequal length, the shorter one's ranges must be the longer one's first ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.records.typed_values import parse_record

DIGITS = 16
"""Hex digits of a range's hash that are kept."""
ID_BYTES = 8


@dataclass(frozen=True)
class StreamHash:
    """Hash after a number of examples, and at the end of each range so far."""

    range_size: int
    """Number of examples of a range; a power of two."""
    examples: int = 0
    digest: str = ""
    """Hash of the digest before and of the id of the last example; empty before the first."""
    ranges: list[str] = field(default_factory=list)
    """First digits of the digest at the end of each range."""

    @classmethod
    def of_run(cls, examples: int) -> StreamHash:
        """Return the hash before the first example of a run that will read so many, in 64 to 127 ranges."""
        return cls(range_size=2 ** max(0, examples.bit_length() - 7))

    def update(self, ids: bytes) -> StreamHash:
        """Return the hash after further examples. ids: their ids, 8 bytes each."""
        digest, examples, ranges = bytes.fromhex(self.digest), self.examples, [*self.ranges]
        for start in range(0, len(ids), ID_BYTES):
            digest = hashlib.sha256(digest + ids[start : start + ID_BYTES]).digest()
            examples += 1
            if examples % self.range_size == 0:
                ranges.append(digest.hex()[:DIGITS])
        return dataclasses.replace(self, examples=examples, digest=digest.hex(), ranges=ranges)

    def agrees_with(self, other: StreamHash) -> bool | None:
        """Return True if both read the same examples in the same order, as far as both read; None if they
        have no range in common. The hashes are chained, so the last common range vouches for all before."""
        if self.examples == other.examples:
            return self.digest == other.digest
        size = max(self.range_size, other.range_size)
        common = min(self.examples, other.examples) // size
        if not common:
            return None
        last = [stream.ranges[common * size // stream.range_size - 1] for stream in (self, other)]
        return last[0] == last[1]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that `parse_stream` reads."""
        return dataclasses.asdict(self)


def parse_stream(content: Any) -> StreamHash | None:
    """Return the hash of a record; None if it is missing or malformed."""
    stream = parse_record(StreamHash, content) if isinstance(content, Mapping) else None
    if stream is None or stream.range_size < 1 or stream.range_size & (stream.range_size - 1):
        return None
    return stream if len(stream.ranges) == stream.examples // stream.range_size else None
