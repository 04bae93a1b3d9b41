"""Runs of Weights & Biases: the `.wandb` file of a run folder, offline or not."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.compare.inputs.importers.imported_run import ImportedRun, flat_facts, frame_of_rows
from harness.core.errors import UserError
from harness.core.files import protobuf_wire as wire

KIND = "W&B run"
MAGIC = b":W&B"
_HEADER = MAGIC + b"\xe1\xbe\0"
_BLOCK_BYTES, _RECORD_HEADER_BYTES = 32768, 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_RECORD_HISTORY, _RECORD_CONFIG, _RECORD_RUN = 2, 5, 17
_RUN_ID, _RUN_CONFIG, _RUN_NAME = 1, 4, 8
_CONFIG_UPDATE, _HISTORY_ITEM, _HISTORY_STEP, _STEP_NUMBER = 1, 1, 2, 1
_ITEM_KEY, _ITEM_NESTED_KEY, _ITEM_JSON = 1, 2, 16


def read_wandb_run(file: Path) -> ImportedRun:
    """Read history, config and name of one run. Raises UserError for a damaged file."""
    rows: list[dict[str, Any]] = []
    settings: dict[str, Any] = {}
    names = {"run_id": "", "run_name": ""}
    cut_files: list[Path] = []
    try:
        for record in _records(file, cut_files):
            for history in wire.messages(record, _RECORD_HISTORY):
                rows.append(_history_row(history))
            for run in wire.messages(record, _RECORD_RUN):
                names = {"run_id": wire.text(run, _RUN_ID), "run_name": wire.text(run, _RUN_NAME)}
                for config in wire.messages(run, _RUN_CONFIG):
                    settings |= _items(config, _CONFIG_UPDATE)
            for config in wire.messages(record, _RECORD_CONFIG):
                settings |= _items(config, _CONFIG_UPDATE)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: is damaged, or of an unknown version ({error})") from error
    settings.pop("_wandb", None)
    names["run_name"] = names["run_name"] or names["run_id"]
    name = f"{file.parent.as_posix()}/{names['run_name']}"
    return ImportedRun(
        str(file), name, KIND, frame_of_rows(rows), flat_facts(settings) | names, is_cut=bool(cut_files)
    )


def _history_row(history: bytes) -> dict[str, Any]:
    row = _items(history, _HISTORY_ITEM)
    for step in wire.messages(history, _HISTORY_STEP):
        row.setdefault("_step", wire.integer(step, _STEP_NUMBER) or 0)
    return row


def _items(message: bytes, number: int) -> dict[str, Any]:
    """Return the values of a message by name. Nested names are joined with dots."""
    values = {}
    for item in wire.messages(message, number):
        nested = [part.decode("utf-8", "replace") for part in wire.messages(item, _ITEM_NESTED_KEY)]
        values[".".join(nested) or wire.text(item, _ITEM_KEY)] = json.loads(wire.text(item, _ITEM_JSON))
    return values


def _records(file: Path, cut_files: list[Path]) -> Iterator[bytes]:
    """Yield the records of a file, which has the layout of a LevelDB log: blocks of 32 KiB with parts of
    records, each with checksum, length and kind. A file that ends within a record is added to `cut_files`."""
    content = file.read_bytes()
    if not content.startswith(_HEADER):
        raise ValueError("it does not begin as version 0 of the format does")
    position, parts = len(_HEADER), b""
    while position + _RECORD_HEADER_BYTES <= len(content):
        space = _BLOCK_BYTES - position % _BLOCK_BYTES
        if space < _RECORD_HEADER_BYTES:
            position += space
            continue
        checksum, length, kind = struct.unpack_from("<IHB", content, position)
        start = position + _RECORD_HEADER_BYTES
        part = content[start : start + length]
        if len(part) < length:
            cut_files.append(file)
            return
        if (
            kind not in (_FULL, _FIRST, _MIDDLE, _LAST)
            or zlib.crc32(part, zlib.crc32(bytes([kind]))) != checksum
        ):
            raise ValueError(f"wrong checksum at byte {position}")
        parts = part if kind in (_FULL, _FIRST) else parts + part
        if kind in (_FULL, _LAST):
            yield parts
        position = start + length
    if position < len(content):
        cut_files.append(file)
