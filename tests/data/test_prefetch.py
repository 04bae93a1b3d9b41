import random
import threading
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from harness.data import Batch, Reader, open_data
from harness.data.readers import MAX_CACHED_BATCHES, PREFETCH_BATCHES


class Stub:
    """Stands for a sampler: says which steps were gathered by which thread, and fails where told to."""

    def __init__(self, fails: Callable[[int], bool] = lambda t: False, seconds: float = 0.0) -> None:
        self.gathered: list[int] = []
        self.threads: set[str] = set()
        self.fails = fails
        self.seconds = seconds

    def batch(self, t: int) -> Batch:
        self.gathered.append(t)
        self.threads.add(threading.current_thread().name)
        time.sleep(self.seconds)
        if self.fails(t):
            raise OSError(f"batch {t} cannot be read")
        return Batch(np.full((2, 3), t, np.int32), np.array([t, t], np.uint64))


@pytest.fixture
def reading():
    """Makes readers that are closed in the end."""
    readers = []

    def make(sampler) -> Reader:
        readers.append(Reader(sampler))
        return readers[-1]

    yield make
    for reader in readers:
        reader.close()


def settled(stub: Stub, steps: int) -> list[int]:
    """What was gathered, once it is so many steps and no more come."""
    deadline = time.monotonic() + 10
    while len(stub.gathered) < steps and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    return sorted(stub.gathered)


def consume(reader: Reader, steps: range, pace: random.Random, got: list[int]) -> None:
    for t in steps:
        got.append(int(reader.get(t).tokens_BT[0, 0]))
        time.sleep(pace.random() * 0.002)


def lanes(reader: Reader, steps: range) -> list[list[int]]:
    got: list[list[int]] = [[], [], []]
    threads = [
        threading.Thread(target=consume, args=(reader, steps, random.Random(lane), got[lane]))
        for lane in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return got


def test_three_lanes_read_each_batch_once(reading):
    stub = Stub()
    reader = reading(stub)
    assert lanes(reader, range(25)) == [list(range(25))] * 3
    assert settled(stub, 25 + PREFETCH_BATCHES) == list(range(25 + PREFETCH_BATCHES))
    assert reader.num_gathered == 25 + PREFETCH_BATCHES


def test_lanes_that_ask_at_once_share_one_gathering(reading):
    stub = Stub(seconds=0.05)
    got = lanes(reading(stub), range(1))
    assert got == [[0]] * 3
    assert Counter(stub.gathered)[0] == 1


def test_the_reader_gives_what_the_sampler_gives(reading, configure):
    sampler = open_data(configure({"a": 1, "b": 2})).sampler(4, 1)
    reader = reading(sampler)
    for t in [0, 1, 2, 50, 3]:
        assert np.array_equal(reader.get(t).tokens_BT, sampler.batch(t).tokens_BT)
        assert np.array_equal(reader.get(t).ids_B, sampler.batch(t).ids_B)


def test_reading_ahead_is_bounded_and_starts_with_the_first_call(reading):
    stub = Stub()
    reader = reading(stub)
    assert settled(stub, 0) == []
    reader.get(1000)
    assert settled(stub, 1 + PREFETCH_BATCHES) == list(range(1000, 1001 + PREFETCH_BATCHES))
    assert "prefetch" in stub.threads


def test_a_lane_that_starts_again_far_back_gets_its_batches(reading):
    stub = Stub()
    reader = reading(stub)
    for t in range(MAX_CACHED_BATCHES * 2):
        reader.get(t)
    assert reader.get(3).tokens_BT[0, 0] == 3
    counts = Counter(settled(stub, MAX_CACHED_BATCHES * 2 + PREFETCH_BATCHES + 1))
    assert counts[3] == 2
    assert max(counts) == MAX_CACHED_BATCHES * 2 - 1 + PREFETCH_BATCHES
    assert reader.get(MAX_CACHED_BATCHES * 2 - 1).ids_B[0] == MAX_CACHED_BATCHES * 2 - 1
    assert counts == Counter(settled(stub, 0))


def test_what_fails_in_the_thread_reaches_every_lane_and_is_tried_again(reading):
    broken = True
    stub = Stub(lambda t: broken and t == 2)
    reader = reading(stub)
    reader.get(0)
    assert settled(stub, 1 + PREFETCH_BATCHES) == list(range(1 + PREFETCH_BATCHES))
    for _ in range(2):
        with pytest.raises(OSError, match="batch 2 cannot be read"):
            reader.get(2)
    broken = False
    assert reader.get(3).tokens_BT[0, 0] == 3
    assert reader.get(2).tokens_BT[0, 0] == 2


def test_a_batch_cannot_be_written(reading):
    batch = reading(Stub()).get(0)
    for array in (batch.tokens_BT, batch.ids_B):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0


def test_close_ends_the_thread():
    before = threading.active_count()
    reader = Reader(Stub())  # type: ignore[arg-type]
    reader.get(0)
    assert threading.active_count() == before + 1
    reader.close()
    reader.close()
    assert threading.active_count() == before
    with pytest.raises(RuntimeError, match="closed"):
        reader.get(1)
