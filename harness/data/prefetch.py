"""Prefetching reader for all runs of a block: each batch is gathered once, ahead of the fastest run."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future

from harness.data.order.sampler import Batch, Sampler

PREFETCH_BATCHES = 4
"""Number of batches gathered ahead of the fastest run."""
MAX_CACHED_BATCHES = 32
"""Number of batches kept for slower runs. Older ones are gathered again when asked for."""


class Reader:
    """Batches by step, for any number of threads."""

    def __init__(self, sampler: Sampler) -> None:
        self.num_gathered = 0
        """Number of batches gathered so far."""
        self._sampler = sampler
        self._batches: OrderedDict[int, Future[Batch]] = OrderedDict()
        self._furthest_step = -PREFETCH_BATCHES - 1
        """Furthest step requested; initially so low that nothing is prefetched."""
        self._next_step = 0
        """Next step that the thread gathers."""
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read_ahead, name="prefetch", daemon=True)
        self._thread.start()

    def get(self, t: int) -> Batch:
        """Return the batch of step t, read-only. Raises the gathering error; a second call tries again."""
        with self._changed:
            if self._closed:
                raise RuntimeError("the reader is closed")
            batch, is_new = self._slot(t)
            self._furthest_step = max(self._furthest_step, t)
            self._next_step = max(self._next_step, self._furthest_step + 1)
            self._changed.notify_all()
        if is_new:
            self._gather(t, batch)
        try:
            return batch.result()
        except BaseException:
            with self._changed:
                if self._batches.get(t) is batch:
                    del self._batches[t]
            raise

    def close(self) -> None:
        """Stop the thread. A second call does nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _read_ahead(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closed or self._next_step <= self._furthest_step + PREFETCH_BATCHES
                )
                if self._closed:
                    return
                t = self._next_step
                self._next_step += 1
                batch, _ = self._slot(t)  # always new: no run has requested it
            self._gather(t, batch)

    def _slot(self, t: int) -> tuple[Future[Batch], bool]:
        """Return the future of a batch, and whether it is new, so that the caller must gather it."""
        is_new = t not in self._batches
        batch = self._batches.setdefault(t, Future())
        self._batches.move_to_end(t)
        if len(self._batches) > MAX_CACHED_BATCHES:
            self._batches.popitem(last=False)
        self.num_gathered += is_new
        return batch, is_new

    def _gather(self, t: int, batch: Future[Batch]) -> None:
        try:
            read = self._sampler.batch(t)
            for array in (read.tokens_BT, read.ids_B):
                array.setflags(write=False)  # runs share it
            batch.set_result(read)
        except BaseException as error:  # an interrupted reader must not block other runs
            batch.set_exception(error)
