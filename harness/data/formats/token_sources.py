"""Sources of tokens: named sets of files of one format, found and checked by their sizes and headers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.config.schema.data import SourceConfig
from harness.core.errors import UserError, did_you_mean
from harness.core.files.folder_walk import list_files
from harness.core.paths import is_remote
from harness.data.documents.read_documents import TEXT_SUFFIXES
from harness.data.formats import array_record, arrow_tables, megatron, plain_files, zarr_arrays
from harness.data.formats.file_index import IndexTask
from harness.data.formats.token_format import (
    TOKEN_FORMATS,
    FileTokens,
    TokenFileError,
    TokenFormat,
    TokenReader,
    configured_reader,
)

SHIPPED = (plain_files, megatron, arrow_tables, array_record, zarr_arrays)
"""Modules that register formats."""
UNNAMED_SUFFIXES = (".bin", ".idx", ".zarr")
"""Ends of names of files of tokens that do not tell their format."""


@dataclass(frozen=True)
class TokenSource:
    """A named source and its files of tokens."""

    name: str
    key: str
    """Config key of the source, for messages."""
    setting: str
    """Config key of its path."""
    path: str
    column: str
    format: str
    reader: TokenReader
    files: tuple[Path, ...]
    folder: Path
    """Folder of the source, or of its only file."""
    samples: tuple[FileTokens, ...]
    """Tokens of each file, or some of them where `is_sample`."""
    skipped: tuple[str, ...] = ()
    """Phrases that name what lies in the folder and is not read."""
    validation: TokenSource | None = None
    """Source whose tokens are all held out, instead of some of this one."""

    def open(self) -> list[FileTokens]:
        """Return the tokens of each file. Raises UserError for a file that is not of the format."""
        pairs = zip(self.files, self.samples, strict=True)
        return [self._open(file) if sample.is_sample else sample for file, sample in pairs]

    def _open(self, file: Path) -> FileTokens:
        try:
            return self.reader.open(file, self.column)
        except TokenFileError as error:
            raise UserError(f"{self.where(file)} {self.named(error)}") from None

    def where(self, file: Path) -> str:
        """Return the words that name a file in messages."""
        suffix = "" if str(file) == self.path else f": {file.name}"
        return f"{self.setting}={self.path}{suffix}"

    def named(self, error: TokenFileError) -> str:
        """Return the words of an error with this source's key in them."""
        return str(error).replace("data.sources.NAME", self.key)

    def index_tasks(self, end_token: int | None) -> list[IndexTask]:
        """Return what there is to index."""
        return [
            IndexTask(self.reader, self.format, file, self.column, end_token, self.where(file))
            for file in self.files
        ]


def is_token_source(config: SourceConfig) -> bool:
    """Return whether a source holds tokens, by its format, or by the names and first bytes of its files. A
    folder that holds text too is read as text."""
    if config.format is not None:
        return True
    if config.path.startswith("pack:") or is_remote(config.path):
        return False
    path = Path(config.path).expanduser()
    try:
        collection = _collection(path)
        if not path.is_dir():
            return collection is not None or _may_hold_tokens(path)
        return _holds_tokens(path, collection[0] if collection else [])
    except TokenFileError:
        return True  # it is of a format, and has a defect
    except OSError:
        return False


def _holds_tokens(folder: Path, collection: Sequence[Path]) -> bool:
    """Return whether a folder has files of tokens, and no text beside them. JSON may describe them."""
    if any(file.parent == folder or file == folder for file in collection):
        return True
    inside = {file if file.is_dir() else file.parent for file in collection}
    listing = list_files(folder, lambda file: file.name.endswith(TEXT_SUFFIXES))
    texts = [
        file for file in listing.files if file.suffix != ".json" and not inside.intersection(file.parents)
    ]
    return not texts and (bool(collection) or any(map(_may_hold_tokens, listing.other_files)))


def find_token_source(name: str, config: SourceConfig, key: str = "") -> TokenSource:
    """Find the files of a source of tokens, and check their headers and sizes. `key` is the config key if it
    is not that of a source. Raises UserError, also for a format that no file tells."""
    key = key or f"data.sources.{name}"
    source = _find_source(name, config, key, f"{key}.path")
    if config.validation is None:
        return source
    validation = dataclasses.replace(config, path=config.validation, validation=None)
    return dataclasses.replace(source, validation=_find_source(name, validation, key, f"{key}.validation"))


def _find_source(name: str, config: SourceConfig, key: str, setting: str) -> TokenSource:
    path, place = Path(config.path).expanduser(), f"{setting}={config.path}"
    if is_remote(config.path):
        raise UserError(
            f"{place}: files of tokens are read in place, so they cannot lie behind a URL. Copy "
            "them to a path, or mount their store."
        )
    try:
        files, format_name, skipped = _find_files(config, key, place, path)
    except TokenFileError as error:
        raise UserError(f"{place} {error}") from None
    except OSError as error:
        raise UserError(
            f"{place}: {error.filename} cannot be read ({error.strerror}). Make it readable."
        ) from None
    source = TokenSource(
        name=name,
        key=key,
        setting=setting,
        path=config.path,
        column=config.column,
        format=format_name,
        reader=configured_reader(format_name, config.options, key),
        files=tuple(files),
        folder=path if path.is_dir() else path.parent,
        samples=(),
        skipped=skipped,
    )
    source = dataclasses.replace(source, samples=tuple(map(_sample_opener(source), files)))
    _check_files(source)
    return source


def _sample_opener(source: TokenSource):
    def open_sample(file: Path) -> FileTokens:
        try:
            return source.reader.open_sample(file, source.column)
        except TokenFileError as error:
            raise UserError(f"{source.where(file)} {source.named(error)}") from None
        except OSError as error:
            raise UserError(
                f"{source.where(file)} cannot be read ({error.strerror}). Make it readable."
            ) from None

    return open_sample


def _find_files(
    config: SourceConfig, key: str, place: str, path: Path
) -> tuple[Sequence[Path], str, tuple[str, ...]]:
    """Return the files, the name of their format, and what is left out."""
    wanted_format = None if config.format is None else TOKEN_FORMATS.entries.get(config.format)
    if config.format is not None and wanted_format is None:
        configured_reader(config.format, config.options, key)  # raises
    if collection := _collection(path, wanted_format):
        return *collection, ()
    if not path.exists():
        names = (entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else ()
        raise UserError(f"{place} does not exist: {did_you_mean(path.name, names)}")
    if path.is_file():
        return [path], (wanted_format or _recognise(path, key, place)).name, ()
    listing = list_files(path, lambda file: _is_wanted(file, wanted_format))
    if not listing.files:
        names = f" ({listing.other_files[0].name}, ...)" if listing.other_files else ""
        raise UserError(
            f"{place} holds no file of tokens{names}. Give files whose names end in"
            f" {', '.join(_suffixes(wanted_format))}, or name their format with {key}.format=..."
        )
    formats = {(wanted_format or _recognise(file, key, place)).name for file in listing.files}
    if len(formats) > 1:
        raise UserError(
            f"{place} holds files of several formats ({', '.join(sorted(formats))}). Give"
            " each format a source of its own."
        )
    skipped = [
        f"{len(listing.other_files)} of another kind ({file.name})" for file in listing.other_files[:1]
    ]
    return listing.files, formats.pop(), tuple(skipped)


def _collection(path: Path, wanted_format: TokenFormat | None = None) -> tuple[list[Path], str] | None:
    """Return the files and the format of a path that is more than a file, such as the folder of a data set,
    or of a folder of such folders."""
    folders = [path]
    if path.is_dir():
        folders += sorted(entry for entry in path.iterdir() if entry.is_dir() and entry.name[0] != ".")
    for entry in [wanted_format] if wanted_format else TOKEN_FORMATS.entries.values():
        if files := entry.implementation.files_of(path):
            return files, entry.name
        parts = [file for folder in folders[1:] for file in entry.implementation.files_of(folder)]
        if parts:
            return parts, entry.name
    return None


def _recognise(file: Path, key: str, place: str) -> TokenFormat:
    """Return the format of a file. Raises UserError if it does not tell it."""
    for entry in TOKEN_FORMATS.entries.values():
        if entry.recognises(file):
            return entry
    raise UserError(
        f"{place}: {file.name} does not tell its format, so name it with {key}.format=..., such as"
        f" nanogpt with +{key}.options.dtype=uint16 for tokens without a header."
    )


def _suffixes(wanted_format: TokenFormat | None) -> list[str]:
    entries = [wanted_format] if wanted_format else TOKEN_FORMATS.entries.values()
    return [*dict.fromkeys(suffix for entry in entries for suffix in entry.suffixes)]


def _is_wanted(file: Path, wanted_format: TokenFormat | None) -> bool:
    """Return whether a file of a folder is read: by its name, and of a named format without suffixes all that
    are no text."""
    suffixes = _suffixes(wanted_format)
    if wanted_format and not suffixes:
        return file.suffix == ".bin" or not file.suffix
    return file.name.endswith(tuple(suffixes))


def _may_hold_tokens(file: Path) -> bool:
    return file.is_file() and file.name.endswith((*_suffixes(None), *UNNAMED_SUFFIXES))


def _check_files(source: TokenSource) -> None:
    """Raise UserError for a source without tokens, or of files of several dtypes."""
    if not any(map(len, source.samples)):
        raise UserError(
            f"{source.setting}={source.path} holds no tokens ({len(source.files)} files, zero rows). Give a"
            " file with tokens in it."
        )
    full = [(file, tokens) for file, tokens in zip(source.files, source.samples, strict=True) if len(tokens)]
    first, dtype = full[0][0], full[0][1].dtype
    for file, tokens in full[1:]:
        if tokens.dtype != dtype:
            raise UserError(
                f"{source.where(file)} holds {tokens.dtype.name}, but {first.name} holds {dtype.name}, so"
                " they are not shards of one data set. Give each a source of its own."
            )
