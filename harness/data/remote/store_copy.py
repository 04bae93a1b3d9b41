"""Copies of the files of a store, in the cache folder.

An entry holds the copies of one folder of a store, however configs name its files: `files` as they lie in the
store, `facts` about each copy, `parts` of files that are being fetched, and the last `listings`, by which
copies are found without a network.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from harness.core import atomic_files
from harness.core.cache.cache_dir import cache_dir
from harness.data.remote.store_listing import StoreFile, StoreListing, folder_url

KIND = "sources"
"""Kind of the entries in the cache (core.cache.cache_usage)."""


@dataclass(frozen=True)
class StoreCopy:
    """Entry of the cache for a folder of a store."""

    root: Path

    @property
    def files(self) -> Path:
        """Folder with the copies, each under its name in the store."""
        return self.root / "files"

    @property
    def heads(self) -> Path:
        """Folder with files of the right size of which only the begin was fetched."""
        return self.root / "heads"

    def path(self, file: StoreFile) -> Path:
        """Return the place of a copy."""
        return self.files / file.name

    def part(self, file: StoreFile) -> Path:
        """Return the place of a copy that is not complete. Another version has another one."""
        return self.root / "parts" / f"{_digest(file.name)}-{_digest(f'{file.size} {file.version}')}.part"

    def lock(self, file: StoreFile) -> Path:
        """Return the lock under which a file is fetched."""
        return self.root / "parts" / f"{_digest(file.name)}.lock"

    def is_current(self, file: StoreFile) -> bool:
        """Return whether there is a whole, unchanged copy of this version of a file."""
        facts = self.facts(file)
        return facts is not None and facts.get("version") == file.version and facts.get("size") == file.size

    def is_outdated(self, file: StoreFile) -> bool:
        """Return whether there is a copy of another version."""
        return self.facts(file) is not None and not self.is_current(file)

    def facts(self, file: StoreFile) -> dict[str, object] | None:
        """Return what is known of a copy; None if there is none, or if it was changed here."""
        facts = atomic_files.read_checksummed_json(self._facts_path(file))
        return facts if facts and facts.get("state") == _state(self.path(file)) else None

    def keep(self, file: StoreFile, part: Path) -> None:
        """Make a part that is complete the copy of a file."""
        path = self.path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.replace(path)
        for old_part in self.root.glob(f"parts/{_digest(file.name)}-*.part"):
            old_part.unlink(missing_ok=True)
        facts = {"name": file.name, "size": file.size, "version": file.version, "state": _state(path)}
        atomic_files.write_checksummed_json(self._facts_path(file), facts)

    def write_listing(self, listing: StoreListing) -> None:
        """Keep a listing for the time when the store cannot be reached."""
        content = dataclasses.asdict(listing)
        atomic_files.write_checksummed_json(self._listing_path(listing.url), content)

    def read_listing(self, url: str) -> StoreListing | None:
        """Return the last listing of a URL if there are copies of all its files; else None."""
        content = atomic_files.read_checksummed_json(self._listing_path(url))
        if content is None:
            return None
        files = tuple(StoreFile(**file) for file in content["files"])
        names = {name: tuple(content[name]) for name in ("hidden", "leftovers", "other_files")}
        return StoreListing(url, files, **names) if all(map(self.is_current, files)) else None

    def _facts_path(self, file: StoreFile) -> Path:
        return self.root / "facts" / f"{_digest(file.name)}.json"

    def _listing_path(self, url: str) -> Path:
        return self.root / "listings" / f"{_digest(url)}.json"


def store_copy(url: str) -> StoreCopy:
    """Return the cache's entry for a URL, and mark it as used. Raises UserError without a cache folder."""
    folder = folder_url(url)
    root = cache_dir(KIND) / _digest(folder)
    (root / "parts").mkdir(parents=True, exist_ok=True)
    os.utime(root)
    return StoreCopy(root)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:24]


def _state(path: Path) -> list[int] | None:
    """Return size and time of a file; None if there is none."""
    try:
        state = path.stat()
    except OSError:
        return None
    return [state.st_size, state.st_mtime_ns]
