"""Listing of a URL with fsspec: a file, a folder or a pattern, with the size and version of each file."""

from __future__ import annotations

import base64
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from harness.core.files.folder_walk import FolderFiles, is_leftover

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

MAX_REQUESTS = 16
"""Number of requests at once for the sizes of files, of a web server."""
_VERSION_KEYS = (
    "ETag", "etag", "e_tag", "sha256", "xet_hash", "blob_id", "generation", "md5Hash", "LastModified",
    "Last-Modified", "last_modified", "updated", "mtime", "uploaded_at", "created",
)  # fmt: skip
"""Keys of an fsspec entry of which the first one tells a version of the file from others."""

IsWanted = Callable[[Path], object]


@dataclass(frozen=True)
class StoreFile:
    """File in a store."""

    place: str
    """Path of the file in its store, as fsspec takes it."""
    name: str
    """Path below the folder of the URL, with the suffix that tells how the file is read."""
    size: int | None
    version: str
    """Tag, hash or time that changes with the content."""
    digest: str = ""
    """`sha256:` or `md5:` and hexadecimal digits, where the store tells them."""


@dataclass(frozen=True)
class StoreListing:
    """Files behind a URL."""

    url: str
    files: tuple[StoreFile, ...]
    """Files to read, sorted by name."""
    hidden: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()
    other_files: tuple[str, ...] = ()

    @property
    def num_bytes(self) -> int:
        """Bytes of the files whose size the store tells."""
        return sum(file.size or 0 for file in self.files)

    def in_folder(self, folder: Path) -> FolderFiles:
        """Return the files as those of a folder that holds their copies."""
        return FolderFiles(
            files=[folder / file.name for file in self.files],
            hidden=[folder / name for name in self.hidden],
            leftovers=[folder / name for name in self.leftovers],
            other_files=[folder / name for name in self.other_files],
        )


def open_store(url: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a URL, without cached listings, and the place of the URL in it."""
    from fsspec.core import url_to_fs

    # A web server that compresses what it sends would send other bytes than those it counts.
    options = {"headers": {"Accept-Encoding": "identity"}} if url.lower().startswith("http") else {}
    store, root = url_to_fs(url, **options)
    store.invalidate_cache()
    return store, str(root)


def folder_url(url: str) -> str:
    """Return the folder to which the names of the files behind a URL relate: that before a pattern, that of a
    name with a suffix, be it a file or a folder, or the URL itself."""
    is_web = url.lower().startswith("http")
    fixed, has_pattern = _split_pattern(url, is_web)
    place = fixed.partition("?")[0] if is_web else fixed
    if has_pattern or PurePosixPath(place).suffix:
        return place.rstrip("/" * (not has_pattern)).rpartition("/")[0]
    return place.rstrip("/")


def list_store(url: str, is_wanted: IsWanted) -> StoreListing:
    """List a URL. Raises whatever the store's package raises, FileNotFoundError if there is nothing."""
    store, root = open_store(url)
    is_web = "http" in store.protocol
    base, entries = folder_url(root), _entries(store, root, is_web, is_wanted)
    names = {_local_name(place, base, is_web): place for place in entries}
    hidden, leftovers, other_names, wanted_names = list[str](), list[str](), list[str](), dict[str, str]()
    for name, place in sorted(names.items()):
        parts = name.split("/")
        if any(part in ("", ".", "..") for part in parts):
            continue
        if any(part.startswith(".") for part in parts):
            hidden.append(name)
        elif is_leftover(Path(name)):
            leftovers.append(name)
        elif not is_wanted(Path(name)):
            other_names.append(name)
        else:
            wanted_names[name] = place
    with ThreadPoolExecutor(MAX_REQUESTS) as pool:
        infos = pool.map(lambda place: _complete(store, entries[place], is_web), wanted_names.values())
        files = tuple(_store_file(name, info) for name, info in zip(wanted_names, infos, strict=True))
    return StoreListing(url, files, tuple(hidden), tuple(leftovers), tuple(other_names))


def file_version(store: AbstractFileSystem, file: StoreFile) -> tuple[int | None, str]:
    """Return size and version of a file as they are now."""
    store.invalidate_cache()
    now = _store_file(file.name, store.info(file.place))
    return now.size, now.version


def _entries(
    store: AbstractFileSystem, root: str, is_web: bool, is_wanted: IsWanted
) -> dict[str, dict[str, Any]]:
    """Return the entries of the files at a place of a store, which is a file, a folder or a pattern."""
    # Otherwise a web folder that cannot be listed would count as empty.
    options: dict[str, Any] = {"on_error": "raise"} if is_web else {}
    if _split_pattern(root, is_web)[1]:
        return _files_only(store.glob(root, detail=True, **options))
    if is_web and is_wanted(Path(_last_name(root))):
        return {root: store.info(root)}
    if not is_web and (info := store.info(root))["type"] == "file":
        return {info["name"]: info}
    folder = f"{root.rstrip('/')}{'/' * is_web}"
    entries = _files_only(store.find(folder, detail=True, **options))
    if not entries:
        raise FileNotFoundError(root)
    return entries


def _files_only(entries: Any) -> dict[str, Any]:
    return {place: entry for place, entry in entries.items() if entry["type"] == "file"}


def _split_pattern(text: str, is_web: bool) -> tuple[str, bool]:
    """Return the text before the first sign of a pattern, and whether there is one. A `?` is none in the
    address of a web page."""
    places = [text.find(sign) for sign in ("*", "[", *(() if is_web else ("?",))) if sign in text]
    return (text[: min(places)], True) if places else (text, False)


def _last_name(url: str) -> str:
    return unquote(url.partition("?")[0].rstrip("/").rpartition("/")[2])


def _local_name(place: str, base: str, is_web: bool) -> str:
    name = place.removeprefix(base).lstrip("/")
    return unquote(name.partition("?")[0]) if is_web else name


def _complete(store: AbstractFileSystem, entry: dict[str, Any], is_web: bool) -> dict[str, Any]:
    """Return an entry with its size: a web server tells it only when asked for the file."""
    return store.info(entry["name"]) if is_web and entry.get("size") is None else entry


def _store_file(name: str, info: dict[str, Any]) -> StoreFile:
    version = next((f"{key}={_stamp(info[key])}" for key in _VERSION_KEYS if info.get(key)), "")
    return StoreFile(info["name"], name, info.get("size"), version, _digest(info))


def _stamp(value: Any) -> str:
    """Return a tag as text; a time as a number, since some stores give it in two forms."""
    time = value.timestamp() if isinstance(value, datetime) else value
    return f"{time:.6f}" if isinstance(time, float) else str(time)


def _digest(info: dict[str, Any]) -> str:
    """Return the checksum that a store keeps of a file: Hugging Face of large files, Google of all."""
    lfs = info.get("lfs")
    sha256 = getattr(lfs, "sha256", None) or (lfs.get("sha256") if isinstance(lfs, dict) else None)
    if sha256:
        return f"sha256:{sha256}"
    md5 = info.get("md5Hash") or info.get("Content-MD5")
    return f"md5:{base64.b64decode(md5).hex()}" if md5 else ""
