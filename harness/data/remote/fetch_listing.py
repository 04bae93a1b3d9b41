"""Listing and fetching of all files of a URL, several at a time."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.core.cache.cache_entries import print_note
from harness.core.errors import UserError
from harness.core.number_format import format_bytes
from harness.core.progress.report import report
from harness.data.remote.fetch_file import fetch_file
from harness.data.remote.store_copy import StoreCopy, store_copy
from harness.data.remote.store_errors import UnreachableStore, store_errors
from harness.data.remote.store_listing import StoreFile, StoreListing, list_store, open_store

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

MAX_FETCHES = 4
"""Number of files that are fetched at once."""
REPORT_SECONDS = 0.5
LISTING_SECONDS = 60.0


_listings: dict[tuple[str, tuple[str, ...]], tuple[float, StoreListing]] = {}
"""Listings of this process, with their times."""


def remote_listing(where: str, url: str, suffixes: tuple[str, ...]) -> StoreListing:
    """List the files behind a URL that end with one of these suffixes; nothing is fetched. A listing counts
    for LISTING_SECONDS: many configs of a sweep may read the same. If the store cannot be reached, and there
    are copies of all files of its last listing, that is said and they count. Raises UserError, which begins
    with `where`: key and value."""
    made_at, listing = _listings.get((url, suffixes), (0.0, None))
    if listing is None or time.monotonic() - made_at > LISTING_SECONDS:
        listing = _ask(where, url, suffixes)
        _listings[url, suffixes] = time.monotonic(), listing
    return listing


def _ask(where: str, url: str, suffixes: tuple[str, ...]) -> StoreListing:
    copy = store_copy(url)
    try:
        with store_errors(where, url):
            listing = list_store(url, lambda file: file.name.endswith(suffixes))
    except UnreachableStore as error:
        last_listing = copy.read_listing(url)
        if last_listing is None:
            raise
        print_note(f"{error} The copy in {copy.files} is used meanwhile.")
        return last_listing
    copy.write_listing(listing)
    return listing


def fetch_files(where: str, url: str, files: Sequence[StoreFile]) -> StoreCopy:
    """Fetch the files that have no current copy, and return the copies. A call that ends early is continued
    by the next one. Raises UserError, which begins with `where`."""
    copy = store_copy(url)
    missing = [file for file in files if not copy.is_current(file)]
    if not missing:
        return copy
    for file in filter(copy.is_outdated, missing):
        print_note(f"{where}: {file.name} has changed since it was fetched, so it is fetched again.")
    _check_room(where, copy, missing)
    with store_errors(where, url):
        store, _ = open_store(url)
        _Fetching(where, url, copy, missing).run(store)
    return copy


def _check_room(where: str, copy: StoreCopy, missing: Sequence[StoreFile]) -> None:
    """Raise UserError unless the missing files fit on the disk."""
    fetched_bytes = sum(part.stat().st_size for part in map(copy.part, missing) if part.exists())
    needed_bytes = sum(file.size or 0 for file in missing) - fetched_bytes
    free = shutil.disk_usage(copy.root).free
    if needed_bytes > free:
        raise UserError(
            f"{where}: its copy needs {format_bytes(needed_bytes)}, and the disk of {copy.root.parent} has "
            f"{format_bytes(free)} left. Free some space, or set AB_HARNESS_CACHE=FOLDER."
        )


@dataclass
class _Fetching:
    """Files that are being fetched by several threads."""

    where: str
    url: str
    copy: StoreCopy
    files: Sequence[StoreFile]
    num_bytes: int = 0
    is_over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, store: AbstractFileSystem) -> None:
        total = sum(file.size or 0 for file in self.files)
        self.num_bytes = sum(part.stat().st_size for part in map(self.copy.part, self.files) if part.exists())
        with ThreadPoolExecutor(MAX_FETCHES) as pool:
            fetches = [
                pool.submit(fetch_file, store, file, self.copy, self.where, self.alive) for file in self.files
            ]
            try:
                left = set(fetches)
                while left:
                    arrivals, left = wait(left, REPORT_SECONDS)
                    for fetch in arrivals:
                        fetch.result()
                    report(
                        f"fetching {self.url} ({format_bytes(self.num_bytes)} so far)", self.num_bytes, total
                    )
            finally:
                self.is_over.set()
                pool.shutdown(cancel_futures=True)

    def alive(self, num_bytes: int) -> None:
        if self.is_over.is_set():
            raise InterruptedError
        with self.lock:
            self.num_bytes += num_bytes
