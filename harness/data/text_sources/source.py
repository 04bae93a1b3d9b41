"""Sources: named sets of files. A folder is read in the order of its files' paths."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.config.schema.data import SourceConfig
from harness.core.errors import UserError, did_you_mean
from harness.core.files.folder_walk import list_files
from harness.core.paths import is_remote
from harness.data.documents.read_documents import (
    TEXT_SUFFIXES,
    damage_errors,
    documents_between,
    read_documents,
    row_group_documents,
    segment_documents,
    suffix_of,
)
from harness.data.remote.fetch_listing import remote_listing
from harness.data.remote.remote_files import RemoteFiles
from harness.data.remote.store_copy import store_copy
from harness.data.text_sources.source_files import choose_files

PACK = Path(__file__).parents[1] / "pack"
IMAGE_SUFFIXES = (".npz",)
SAMPLE_FILES, SAMPLE_CHARACTERS = 16, 20_000
"""Number of files of a source that are sampled, and of the first characters of each."""
FETCHED_BYTES = 2**25
"""Bytes behind a URL up to which they are fetched at once, and not only when they are needed; as many as are
read at once to count them (`source_hash.SMALL_BYTES`)."""


@dataclass(frozen=True)
class Source:
    """A named source and its files."""

    name: str
    path: str
    column: str
    files: tuple[Path, ...]
    folder: Path
    """Folder of the source, or of its only file."""
    skipped: tuple[str, ...] = ()
    """Phrases that name what lies in the folder and is not read."""
    remote: RemoteFiles | None = None
    """Files behind a URL for which `files` are stand-ins."""

    @property
    def key(self) -> str:
        """Config key of the source, for messages."""
        return f"data.sources.{self.name}"

    def place(self, file: Path) -> str:
        """Return the config key, its value and the name of a file, for messages."""
        return f"{self.key}.path={self.path}: {file.name}"

    @property
    def sample_stride(self) -> int:
        """Distance of the files that are sampled, from the first one on."""
        return -(-len(self.files) // SAMPLE_FILES)

    def fetched(self) -> Source:
        """Return the source with all its files on this machine. Raises UserError."""
        if self.remote is None:
            return self
        return dataclasses.replace(self, files=self.remote.fetch(), remote=None)

    def with_copies(self) -> Source:
        """Return the source with the copies of its files if they were fetched, else with what stands in for
        them."""
        return self.fetched() if self.remote and self.remote.is_fetched() else self

    def with_files(self, files: tuple[Path, ...]) -> Source:
        """Return the same source with other files."""
        return dataclasses.replace(self, files=files)

    def documents(self) -> Iterator[str]:
        """Yield the documents that hold more than white space, in a fixed order. Raises UserError."""
        for file in self.files:
            yield from self.documents_of(file)

    def documents_of(self, file: Path, start: int = 0, stop: int | None = None) -> Iterator[str]:
        """Yield the documents of one file, or of a part of it: those that begin in these bytes of a text, or
        of these row groups of a Parquet file. Raises UserError."""
        terms = file, self.column, self.key, self.path
        with self.reading(file):
            if stop is None:
                documents = read_documents(*terms)
            elif suffix_of(file) == ".parquet":
                documents = row_group_documents(*terms, range(start, stop))
            else:
                documents = documents_between(*terms, start, stop)
            yield from (text for text in documents if text.strip())

    def documents_of_segment(self, file: Path, content: bytes, lines_before: int) -> Iterator[str]:
        """Yield the documents of a segment of a compressed file (`documents.cut_segments`) that begins after
        `lines_before` lines. Raises UserError."""
        with self.reading(file):
            documents = segment_documents(file, self.column, self.key, self.path, content, lines_before)
            yield from (text for text in documents if text.strip())

    @contextmanager
    def reading(self, file: Path) -> Iterator[None]:
        """Raise UserError for the errors of reading a file."""
        try:
            yield
        except UnicodeError:
            raise UserError(f"{self.place(file)} is not UTF-8: convert it") from None
        except damage_errors():
            problem = "it is damaged, protected, or not of the kind in its name"
            raise UserError(f"{self.place(file)} cannot be read: {problem}. Replace it.") from None


def find_source(name: str, config: SourceConfig, suffixes: tuple[str, ...] = TEXT_SUFFIXES) -> Source:
    """Find the files of a source. Of a large text behind a URL they are stand-ins (`Source.fetched`). Raises
    UserError if there is nothing to read."""
    key = f"data.sources.{name}.path={config.path}"
    if is_remote(config.path):
        return _find_remote_source(name, key, config, suffixes)
    is_packed = config.path.startswith("pack:")
    path = _pack_file(key, config.path, suffixes) if is_packed else Path(config.path).expanduser()
    if not path.exists():
        siblings = path.parent.iterdir() if path.parent.is_dir() else ()
        names = (entry.name for entry in siblings)
        raise UserError(f"{key} does not exist: {did_you_mean(path.name, names)}")
    files, skipped = _files_of(key, path, suffixes)
    _check_files(key, [file.stat().st_size for file in files], skipped, suffixes)
    folder = path if path.is_dir() else path.parent
    return Source(name, config.path, config.column, tuple(files), folder, skipped)


def _find_remote_source(name: str, key: str, config: SourceConfig, suffixes: tuple[str, ...]) -> Source:
    listing = remote_listing(key, config.path, suffixes)
    folder = store_copy(config.path).files
    files, skipped = choose_files(folder, listing.in_folder(folder))
    chosen_names = {file.relative_to(folder).as_posix() for file in files}
    remote = RemoteFiles(key, config.path, tuple(file for file in listing.files if file.name in chosen_names))
    _check_files(key, [1 if file.size is None else file.size for file in remote.files], skipped, suffixes)
    source = Source(name, config.path, config.column, tuple(files), folder, skipped, remote)
    is_small = remote.num_bytes <= FETCHED_BYTES or suffixes == IMAGE_SUFFIXES
    if is_small or remote.is_fetched():
        return source.fetched()
    sample = range(0, len(files), source.sample_stride)
    stand_ins = remote.stand_ins(sample, config.column)
    for index in sample:
        if not _holds_sample(source, stand_ins[index]):
            stand_ins[index] = remote.fetch_one(index)
    return source.with_files(tuple(stand_ins))


def _holds_sample(source: Source, stand_in: Path) -> bool:
    """Return whether the begin of a file was enough to read its first documents."""
    left = SAMPLE_CHARACTERS
    try:
        for document in source.documents_of(stand_in):
            left -= len(document)
            if left <= 0:
                break
    except UserError:  # of the whole file, if that is bad too
        return False
    return True


def _check_files(key: str, sizes: Sequence[int], skipped: Sequence[str], suffixes: tuple[str, ...]) -> None:
    """Raise UserError if there is no file, or nothing in them."""
    if not sizes:
        content = f" It holds {', '.join(skipped)}." if skipped else ""
        raise UserError(f"{key} holds no readable file. Give {', '.join(suffixes)}.{content}")
    if not any(sizes):
        raise UserError(f"{key} is empty: give a file with {_content_word(suffixes)} in it")


def _files_of(key: str, path: Path, suffixes: tuple[str, ...]) -> tuple[list[Path], tuple[str, ...]]:
    """Return the files to read, sorted by path, and phrases for those that are left out."""
    if path.is_file():
        return ([path] if suffix_of(path, suffixes) else []), ()
    try:
        listing = list_files(path, lambda file: suffix_of(file, suffixes))
    except OSError as error:
        problem = f"{error.filename} cannot be listed ({error.strerror})"
        raise UserError(f"{key}: {problem}. Make it readable, or move it away.") from None
    return choose_files(path, listing)


def _pack_file(key: str, path: str, suffixes: tuple[str, ...]) -> Path:
    suffix = ".npz" if suffixes == IMAGE_SUFFIXES else ".txt.zst"
    names = [file.name.removesuffix(suffix) for file in PACK.glob(f"*{suffix}")]
    name = path.removeprefix("pack:")
    if name not in names:
        content = _content_word(suffixes)
        raise UserError(f"{key}: the harness ships no such {content}; {did_you_mean(name, names)}")
    return PACK / f"{name}{suffix}"


def _content_word(suffixes: tuple[str, ...]) -> str:
    return "images" if suffixes == IMAGE_SUFFIXES else "text"
