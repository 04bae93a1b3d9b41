"""Hash of the stream of examples: the same for every cut into batches, other for every other order."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from harness.records.run.stream_hash import StreamHash, parse_stream

IDS = np.random.default_rng(0).integers(0, 2**63, 1000, dtype=np.uint64)


def read(ids: np.ndarray, batch: int, planned: int = 1000) -> StreamHash:
    """Return the hash after whole batches of these ids."""
    stream = StreamHash.of_run(planned)
    for start in range(0, len(ids) // batch * batch, batch):
        stream = stream.update(ids[start : start + batch].astype("<u8").tobytes())
    return stream


def test_a_plain_chain_over_the_ids_gives_the_same_hash():
    digest, ends = b"", []
    for count, each in enumerate(IDS, 1):
        digest = hashlib.sha256(digest + int(each).to_bytes(8, "little")).digest()
        ends += [digest.hex()[:16]] if count % 8 == 0 else []
    stream = read(IDS, 10)
    assert (stream.range_size, stream.examples, stream.digest) == (8, 1000, digest.hex())
    assert stream.ranges == ends


@pytest.mark.parametrize(("batch", "other"), [(1, 1000), (7, 10), (8, 12), (16, 24), (32, 8)])
def test_the_batch_size_does_not_matter(batch, other):
    assert read(IDS, batch).agrees_with(read(IDS, other)) is True


@pytest.mark.parametrize("planned", [1000, 500, 2100])
def test_the_shorter_stream_is_the_beginning_of_the_longer_one(planned):
    assert read(IDS, 10).agrees_with(read(IDS[:480], 12, planned)) is True
    other = IDS[:480].copy()
    other[[100, 200]] = other[[200, 100]]
    assert read(IDS, 10).agrees_with(read(other, 12, planned)) is False


@pytest.mark.parametrize("place", [0, 499, 999])
def test_one_other_example_or_order_is_seen(place):
    changed, swapped = IDS.copy(), IDS.copy()
    changed[place] += np.uint64(1)
    swapped[[place, place - 1]] = swapped[[place - 1, place]]
    assert read(IDS, 8).agrees_with(read(changed, 25)) is False
    assert read(IDS, 8).agrees_with(read(swapped, 25)) is False


def test_streams_without_a_common_range_prove_nothing():
    assert read(IDS, 10).agrees_with(read(IDS[:5], 5)) is None
    assert read(IDS[:5], 5).agrees_with(read(IDS, 10)) is None


def test_a_record_is_read_back_and_a_malformed_one_is_none():
    stream = read(IDS, 8)
    assert parse_stream(json.loads(json.dumps(stream.to_json()))) == stream
    for broken in ({}, None, [], {"range_size": 3}, dataclasses.asdict(stream) | {"ranges": []}):
        assert parse_stream(broken) is None
