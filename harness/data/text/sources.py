"""Sources: named sets of files. A folder is read in the order of its files' paths."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from harness.config.schema.run import SourceConfig
from harness.core.errors import UserError, did_you_mean
from harness.core.files.folder_walk import FolderFiles, list_files
from harness.data.documents.compressed import COMPRESSIONS
from harness.data.text.documents import (
    TEXT_SUFFIXES,
    documents_between,
    read_documents,
    row_group_documents,
    segment_documents,
    suffix_of,
)

PACK = Path(__file__).parents[1] / "pack"
IMAGE_SUFFIXES = (".npz",)
COMPRESSED = tuple(COMPRESSIONS)
METADATA = (
    "dataset_info",
    "dataset_infos",
    "dataset_dict",
    "state",
    "config",
    "tokenizer",
    "tokenizer_config",
)
"""Names of JSON files that describe data or models."""


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

    @property
    def key(self) -> str:
        """Config key of the source, for messages."""
        return f"data.sources.{self.name}"

    def place(self, file: Path) -> str:
        """Return the config key, its value and the name of a file, for messages."""
        return f"{self.key}.path={self.path}: {file.name}"

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
        except (OSError, pa.ArrowException):
            problem = "it is damaged, protected, or not of the kind in its name"
            raise UserError(f"{self.place(file)} cannot be read: {problem}. Replace it.") from None


def find_source(name: str, config: SourceConfig, suffixes: tuple[str, ...] = TEXT_SUFFIXES) -> Source:
    """Find the files of a source. Raises UserError if there is nothing to read."""
    key = f"data.sources.{name}.path={config.path}"
    is_packed = config.path.startswith("pack:")
    path = _pack_file(key, config.path, suffixes) if is_packed else Path(config.path).expanduser()
    if not path.exists():
        siblings = path.parent.iterdir() if path.parent.is_dir() else ()
        names = (entry.name for entry in siblings)
        raise UserError(f"{key} does not exist: {did_you_mean(path.name, names)}")
    files, skipped = _files_of(key, path, suffixes)
    if not files:
        content = f" It holds {', '.join(skipped)}." if skipped else ""
        raise UserError(f"{key} holds no readable file. Give {', '.join(suffixes)}.{content}")
    if not any(file.stat().st_size for file in files):
        raise UserError(f"{key} is empty: give a file with {_content_word(suffixes)} in it")
    folder = path if path.is_dir() else path.parent
    return Source(name, config.path, config.column, tuple(files), folder, skipped)


def _files_of(key: str, path: Path, suffixes: tuple[str, ...]) -> tuple[list[Path], tuple[str, ...]]:
    """Return the files to read, sorted by path, and phrases for those that are left out."""
    if path.is_file():
        return ([path] if suffix_of(path, suffixes) else []), ()
    try:
        listing = list_files(path, lambda file: suffix_of(file, suffixes))
    except OSError as error:
        problem = f"{error.filename} cannot be listed ({error.strerror})"
        raise UserError(f"{key}: {problem}. Make it readable, or move it away.") from None
    plain = set(listing.files)
    copies = [file for file in listing.files if file.suffix in COMPRESSED and file.with_suffix("") in plain]
    descriptions = _descriptions(listing.files)
    left_out = {*copies, *descriptions}
    files = [file for file in listing.files if file not in left_out]
    return files, _skipped_phrases(path, listing, copies, descriptions)


def _descriptions(files: Sequence[Path]) -> list[Path]:
    """Return the `.json` files that describe data and hold none: all that lie beside other files, and
    otherwise those with a name of METADATA."""
    described = [file for file in files if (suffix_of(file) or "").split(".")[1:2] == ["json"]]
    if len(described) < len(files):
        return described
    return [file for file in described if file.name.partition(".")[0] in METADATA]


def _skipped_phrases(
    folder: Path, listing: FolderFiles, copies: Sequence[Path], descriptions: Sequence[Path]
) -> tuple[str, ...]:
    groups = {
        "hidden": listing.hidden,
        "left by editors or systems": listing.leftovers,
        "that describe the data": descriptions,
        "compressed beside its plain file": copies,
        "linked again": listing.repeats,
        "linked to nothing": listing.broken_links,
        "of another kind": listing.other_files,
    }
    return tuple(
        f"{len(paths)} {kind} ({paths[0].relative_to(folder)}{', ...' if len(paths) > 1 else ''})"
        for kind, paths in groups.items()
        if paths
    )


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
