"""Listing of a remote sweep with fsspec: the files that a comparison reads, with a version stamp each."""

from __future__ import annotations

import errno
import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from harness.core.cache.cache_dir import cache_dir
from harness.core.errors import UserError, cause_chain, did_you_mean
from harness.core.files.expansion import check_expansion
from harness.records.paths import NOISE_FLOORS, RECORDS, RUN

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

MAX_REQUESTS = 16
"""Number of concurrent requests: enough to hide latency, few enough for a small web server."""
_UNVERSIONED_KEYS = (
    "name", "Key", "type", "size", "Size", "mimetype", "partial", "url", "mode", "StorageClass",
)  # fmt: skip
"""Keys of a listing entry that may stay the same when the content of the file changes."""
Entry = dict[str, Any]
"""Entry of a listing, in the form of fsspec."""


class ChangedDuringRead(Exception):
    """A file vanished or changed between listing and reading."""


@dataclass(frozen=True)
class RemoteFile:
    """Listed remote file."""

    path: str
    size: int | None
    stamp: str
    """Version stamp. It changes with the content; without version information it is random."""


@dataclass(frozen=True)
class RemoteFolder:
    """URL with its opened file system, and the path `root` in that file system."""

    url: str
    files: AbstractFileSystem
    root: str

    @property
    def name(self) -> str:
        """Name of the folder or file; for an archive with the sweep at its root, the name of the archive."""
        name = PurePosixPath(self.root).name or PurePosixPath(self.url).stem or "sweep"
        return PurePosixPath(unquote(name.partition("?")[0])).name if _is_web(self.files) else name


def open_remote(url: str) -> RemoteFolder:
    """Open a URL with fsspec, without cached listings."""
    from fsspec.core import url_to_fs

    files, root = url_to_fs(url)
    files.invalidate_cache()
    return RemoteFolder(url, files, str(root).rstrip("/"))


def list_sweep_files(remote: RemoteFolder, note: Callable[[str], None]) -> dict[str, RemoteFile]:
    """List the records of a sweep and the noise floors of its siblings, by path from the parent folder.

    Calls `note` with a message if the siblings cannot be listed. Raises UserError if there is no sweep.
    """
    sweep_entries = _list_matching(remote.files, remote.root, RECORDS)
    if not any(fnmatchcase(path, RUN) for path in sweep_entries):
        raise UserError(f"{remote.url} is not a sweep. Name the folder that contains rule.json.")
    own_entries = {f"{remote.name}/{path}": entry for path, entry in sweep_entries.items()}
    entries = _sibling_noise_floors(remote, note) | own_entries
    with _parallel_map(remote.files) as parallel_map:
        remote_files = parallel_map(lambda entry: _remote_file(remote.files, entry), entries.values())
        return dict(zip(entries, remote_files, strict=True))


def list_single_file(remote: RemoteFolder) -> dict[str, RemoteFile]:
    """Return `{name: file}` of the single file at the URL. Raises UserError if it is a folder."""
    entry = remote.files.info(remote.root)
    if entry["type"] == "directory":
        raise UserError(f"{remote.url} is a folder. Name a file in it.")
    return {remote.name: _remote_file(remote.files, entry)}


def check_archive(remote: RemoteFolder, listing: Mapping[str, RemoteFile]) -> None:
    """Raise UserError if the listed files of an archive expand to more than the limit."""
    from fsspec.archive import AbstractArchiveFileSystem
    from fsspec.core import url_to_fs

    if isinstance(remote.files, AbstractArchiveFileSystem):
        outer_files, archive = url_to_fs(remote.url.partition("::")[2])
        expanded_bytes = sum(remote_file.size or 0 for remote_file in listing.values())
        check_expansion(remote.url, expanded_bytes, outer_files.size(archive) or 0)


@contextmanager
def as_remote_errors(url: str) -> Iterator[None]:
    """Convert any exception to UserError: each protocol's package raises its own classes."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        names = [cause.name for cause in cause_chain(error) if isinstance(cause, ImportError) and cause.name]
        package = names[0] if names else f"the missing package ({error})"
        protocol = url.partition(":")[0]
        raise UserError(f"{url}: {protocol} needs another package. Run pip install {package}") from error
    except FileNotFoundError as error:
        raise UserError(f"{url} does not exist. Check the host or bucket, and the folder.") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"{url}: its copy does not fit on the disk of {cache_dir('remote')}. Free some space there, "
                "or set AB_HARNESS_CACHE=FOLDER."
            ) from error
        if "Protocol not known" in str(error):
            from fsspec import available_protocols

            protocol = url.partition(":")[0]
            suggestion = did_you_mean(protocol, available_protocols())
            raise UserError(f"{url}: there is no protocol '{protocol}'; {suggestion}") from error
        raise UserError(
            f"{url}: cannot be read ({_one_line(error)}). Check the name, the network and your "
            "credentials, or copy it here."
        ) from error


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _sibling_noise_floors(remote: RemoteFolder, note: Callable[[str], None]) -> dict[str, Entry]:
    """List the noise floors of the sweeps in the same folder, which the verdict may use."""
    from fsspec.archive import AbstractArchiveFileSystem

    parent = remote.files._parent(remote.root)
    if not remote.root or not (parent or isinstance(remote.files, AbstractArchiveFileSystem)):
        return {}
    try:
        return _list_matching(remote.files, parent, [f"*/{NOISE_FLOORS}"])
    except ChangedDuringRead:
        raise
    except Exception as error:
        reason = f"its parent folder cannot be listed ({_one_line(error)})"
        note(f"{remote.url}: {reason}, so the noise floors of other sweeps are unknown.")
        return {}


def _list_matching(files: AbstractFileSystem, root: str, patterns: Sequence[str]) -> dict[str, Entry]:
    """Return the files below a folder that match a pattern, by relative path. Lists level by level."""
    matching: dict[str, Entry] = {}
    level = {"": root}
    while level:
        with _parallel_map(files) as parallel_map:
            listings = [*parallel_map(lambda path: _list_folder(files, path, root), level.values())]
        entries = {
            f"{above}{name}": entry
            for above, listing in zip(level, listings, strict=True)
            for name, entry in listing.items()
        }
        folders = {path: entry for path, entry in entries.items() if entry["type"] == "directory"}
        level = {
            f"{path}/": item["name"] for path, item in folders.items() if _may_hold_match(path, patterns)
        }
        files_here = {path: item for path, item in entries.items() if path not in folders}
        matching |= {path: item for path, item in files_here.items() if _matches(path, patterns)}
    return matching


def _list_folder(files: AbstractFileSystem, folder: str, root: str) -> dict[str, Entry]:
    """Return the entries of a folder by name, unquoted, without an entry for the folder itself."""
    try:
        entries = files.ls(folder, detail=True)
    except FileNotFoundError as error:
        raise error if folder == root else ChangedDuringRead from error
    entries_by_name: dict[str, Entry] = {}
    for entry in entries:
        above, _, last = entry["name"].rstrip("/").rpartition("/")
        name = unquote(last) if _is_web(files) else last
        if f"{above}/{last}" != folder.rstrip("/") and "/" not in name and name not in ("", ".", ".."):
            entries_by_name[name] = entry
    return entries_by_name


def _matches(path: str, patterns: Sequence[str]) -> bool:
    parts, splits = path.split("/"), [pattern.split("/") for pattern in patterns]
    return any(len(split) == len(parts) and all(map(fnmatchcase, parts, split)) for split in splits)


def _may_hold_match(folder: str, patterns: Sequence[str]) -> bool:
    """Return whether a file below the folder may match a pattern."""
    parts, splits = folder.split("/"), [pattern.split("/") for pattern in patterns]
    return any(len(split) > len(parts) and all(map(fnmatchcase, parts, split)) for split in splits)


def _remote_file(files: AbstractFileSystem, entry: Entry) -> RemoteFile:
    """Convert an entry. A web server reveals a file's size only when asked for that file."""
    try:
        info = files.info(entry["name"]) if entry.get("size") is None else entry
    except FileNotFoundError as error:
        raise ChangedDuringRead from error
    attributes = {key: str(value) for key, value in info.items() if value is not None}
    version = {key: value for key, value in attributes.items() if key not in _UNVERSIONED_KEYS}
    stamp = json.dumps([info["size"], version], sort_keys=True) if version else secrets.token_hex(8)
    return RemoteFile(entry["name"], info["size"], stamp)


def download(files: AbstractFileSystem, sources: list[str], targets: list[str]) -> None:
    """Copy remote files to local paths, MAX_REQUESTS at a time."""
    for start in range(0, len(sources), MAX_REQUESTS):
        batch = slice(start, start + MAX_REQUESTS)
        files.get(sources[batch], targets[batch])


@contextmanager
def _parallel_map(files: AbstractFileSystem) -> Iterator[Callable]:
    """Yield a `map` over threads; one thread if the file system is not concurrent (an archive)."""
    with ThreadPoolExecutor(MAX_REQUESTS if files.async_impl else 1) as pool:
        yield pool.map


def _is_web(files: AbstractFileSystem) -> bool:
    return "http" in files.protocol
