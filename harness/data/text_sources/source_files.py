"""Choice of the files of a folder that a source reads, and phrases for those that it leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.core.files.folder_walk import FolderFiles
from harness.data.documents.compressed import COMPRESSIONS
from harness.data.documents.read_documents import suffix_of

METADATA = (
    "dataset_info", "dataset_infos", "dataset_dict", "state", "config", "tokenizer", "tokenizer_config",
)  # fmt: skip
"""Names of JSON files that describe data or models."""


def choose_files(folder: Path, listing: FolderFiles) -> tuple[list[Path], tuple[str, ...]]:
    """Return the files of a listing to read, sorted by path, and phrases for those that are left out."""
    plain = set(listing.files)
    copies = [file for file in listing.files if file.suffix in COMPRESSIONS and file.with_suffix("") in plain]
    descriptions = _descriptions(listing.files)
    left_out = {*copies, *descriptions}
    files = [file for file in listing.files if file not in left_out]
    return files, _skipped_phrases(folder, listing, copies, descriptions)


def _descriptions(files: Sequence[Path]) -> list[Path]:
    """Return the `.json` files that describe data and hold none: all that lie beside other files, and
    otherwise those with a name of METADATA."""
    json_files = [file for file in files if (suffix_of(file) or "").split(".")[1:2] == ["json"]]
    if len(json_files) < len(files):
        return json_files
    return [file for file in json_files if file.name.partition(".")[0] in METADATA]


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
