"""What lies behind a URL, by fsspec: the files of a sweep that a comparison reads, and a stamp of each."""

from __future__ import annotations

import errno
import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from harness.core.cache_dir import cache_dir
from harness.core.errors import UserError, did_you_mean
from harness.records.paths import NOISE_FLOORS, RECORDS, RUN

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

MAX_REQUESTS = 16
"""Questions that are asked together, where the other side answers more than one at a time: enough to hide its
latency, few enough for a small web server."""
_UNVERSIONED_KEYS = {
    "name",
    "Key",
    "type",
    "size",
    "Size",
    "mimetype",
    "partial",
    "url",
    "mode",
    "StorageClass",
}
"""Of what is listed of a file: what may stay the same when its content changes."""
_WEB = "http"
Entry = dict[str, Any]
"""Of a listing, as fsspec has it."""


class ChangedDuringRead(Exception):
    """Something went between the moment it was listed and the moment it was read."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as it was listed."""

    path: str
    size: int | None
    stamp: str
    """Another one where its content is another; where nothing there tells, another one each time."""


@dataclass(frozen=True)
class RemoteFolder:
    url: str
    files: AbstractFileSystem
    root: str

    @property
    def name(self) -> str:
        """Of the folder or file; of an archive that is the sweep itself, the archive's."""
        name = PurePosixPath(self.root).name or PurePosixPath(self.url).stem or "sweep"
        return PurePosixPath(unquote(name.partition("?")[0])).name if _is_web(self.files) else name


def open_remote(url: str) -> RemoteFolder:
    from fsspec.core import url_to_fs  # imported where there is a URL alone

    files, root = url_to_fs(url)
    files.invalidate_cache()
    return RemoteFolder(url, files, str(root).rstrip("/"))


def list_sweep_files(remote: RemoteFolder, note: Callable[[str], None]) -> dict[str, RemoteFile]:
    """What a comparison reads, by path below the folder that holds the sweep; with it the noise floors of
    the sweeps beside it. `note` is told where these cannot be seen. Raises UserError where no sweep is."""
    sweep_entries = _list_matching(remote.files, remote.root, RECORDS)
    if not any(fnmatchcase(path, RUN) for path in sweep_entries):
        raise UserError(f"{remote.url}: no sweep lies there; name the folder that holds rule.json and scales")
    entries = _sibling_noise_floors(remote, note) | {
        f"{remote.name}/{path}": entry for path, entry in sweep_entries.items()
    }
    with _parallel_map(remote.files) as parallel_map:
        return dict(
            zip(
                entries,
                parallel_map(lambda entry: _remote_file(remote.files, entry), entries.values()),
                strict=True,
            )
        )


def list_single_file(remote: RemoteFolder) -> dict[str, RemoteFile]:
    """One file, by its name."""
    entry = remote.files.info(remote.root)
    if entry["type"] == "directory":
        raise UserError(f"{remote.url}: this is a folder; name a file in it")
    return {remote.name: _remote_file(remote.files, entry)}


@contextmanager
def as_remote_errors(url: str) -> Iterator[None]:
    """Each package behind a protocol raises in its own way, and promises no narrower class."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        names = [cause.name for cause in _chain(error) if isinstance(cause, ImportError) and cause.name]
        why = f"a package is missing for {url.partition(':')[0]}"
        raise UserError(
            f"{url}: {why}; pip install {names[0] if names else f'what it asks for ({error})'}"
        ) from error
    except FileNotFoundError as error:
        raise UserError(
            f"{url}: nothing lies there; check the names of host or bucket, and folder"
        ) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"{url}: its copy does not fit on the disk of {cache_dir('remote')}; make room there, or set "
                "AB_HARNESS_CACHE=FOLDER"
            ) from error
        if "Protocol not known" in str(error):
            raise UserError(f"{url}: {_unknown(url)}") from error
        raise UserError(
            f"{url}: cannot be read ({_one_line(error)}); see to the name, the network and your credentials, or "
            "copy it here"
        ) from error


def _unknown(url: str) -> str:
    from fsspec import available_protocols

    protocol = url.partition(":")[0]
    return f"there is no protocol '{protocol}'; {did_you_mean(protocol, available_protocols())}"


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _sibling_noise_floors(remote: RemoteFolder, note: Callable[[str], None]) -> dict[str, Entry]:
    """Noise floors of the sweeps beside it, which its verdict may rest on."""
    from fsspec.archive import AbstractArchiveFileSystem

    parent = remote.files._parent(remote.root)
    if not remote.root or not (parent or isinstance(remote.files, AbstractArchiveFileSystem)):
        return {}
    try:
        return _list_matching(remote.files, parent, [f"*/{NOISE_FLOORS}"])
    except ChangedDuringRead:
        raise
    except Exception as error:
        note(
            f"{remote.url}: the folder above cannot be listed ({_one_line(error)}): its noise floors are not known"
        )
        return {}


def _list_matching(files: AbstractFileSystem, root: str, patterns: Sequence[str]) -> dict[str, Entry]:
    """The files below a folder that fit a pattern, by relative path; folders of one level all at once."""
    matching: dict[str, Entry] = {}
    level = {"": root}
    while level:
        with _parallel_map(files) as each:
            listings = [*each(lambda path: _list_folder(files, path, top=path == root), level.values())]
        entries = {
            f"{above}{name}": entry
            for above, listing in zip(level, listings, strict=True)
            for name, entry in listing.items()
        }
        folders = {path: entry for path, entry in entries.items() if entry["type"] == "directory"}
        matching |= {
            path: each for path, each in entries.items() if path not in folders and _matches(path, patterns)
        }
        level = {
            f"{path}/": each["name"] for path, each in folders.items() if _may_hold_match(path, patterns)
        }
    return matching


def _list_folder(files: AbstractFileSystem, folder: str, *, top: bool) -> dict[str, Entry]:
    """By name. The links of a page are quoted, and some stores list a folder in itself."""
    try:
        entries = files.ls(folder, detail=True)
    except FileNotFoundError as error:
        raise error if top else ChangedDuringRead from error
    plain = unquote if _is_web(files) else str
    entries_by_name: dict[str, Entry] = {}
    for entry in entries:
        above, _, last = entry["name"].rstrip("/").rpartition("/")
        name = plain(last)
        if f"{above}/{last}" != folder.rstrip("/") and "/" not in name and name not in ("", ".", ".."):
            entries_by_name[name] = entry
    return entries_by_name


def _matches(path: str, patterns: Sequence[str]) -> bool:
    parts = path.split("/")
    return any(_parts_match(parts, split) for split in map(_split, patterns) if len(split) == len(parts))


def _may_hold_match(folder: str, patterns: Sequence[str]) -> bool:
    """Whether what fits may lie below it."""
    parts = folder.split("/")
    return any(
        _parts_match(parts, split[: len(parts)]) for split in map(_split, patterns) if len(split) > len(parts)
    )


def _split(pattern: str) -> list[str]:
    return pattern.split("/")


def _parts_match(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    return all(fnmatchcase(part, pattern) for part, pattern in zip(parts, patterns, strict=True))


def _remote_file(files: AbstractFileSystem, entry: Entry) -> RemoteFile:
    """A web server tells of a file only when it is asked for that one."""
    try:
        info = files.info(entry["name"]) if entry.get("size") is None else entry
    except FileNotFoundError as error:
        raise ChangedDuringRead from error
    version = {
        key: str(value) for key, value in info.items() if key not in _UNVERSIONED_KEYS and value is not None
    }
    stamp = json.dumps([info["size"], version], sort_keys=True) if version else secrets.token_hex(8)
    return RemoteFile(entry["name"], info["size"], stamp)


def download(files: AbstractFileSystem, sources: list[str], targets: list[str]) -> None:
    """Copy files to paths, some at a time."""
    for start in range(0, len(sources), MAX_REQUESTS):
        batch = slice(start, start + MAX_REQUESTS)
        files.get(sources[batch], targets[batch])


@contextmanager
def _parallel_map(files: AbstractFileSystem) -> Iterator[Callable]:
    """A `map` in threads; in one thread for what is read through one open file, such as an archive."""
    with ThreadPoolExecutor(MAX_REQUESTS if files.async_impl else 1) as pool:
        yield pool.map


def _is_web(files: AbstractFileSystem) -> bool:
    return _WEB in files.protocol
