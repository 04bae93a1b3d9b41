"""Scalars of TensorBoard event files, read with the standard library."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.compare.inputs.importers.imported_run import ImportedRun, frame_of_rows, rows_by_step
from harness.core.errors import UserError
from harness.core.files import protobuf_wire as wire

KIND = "TensorBoard event folder"
_EVENT_STEP, _EVENT_SUMMARY = 2, 5
_SUMMARY_VALUE, _VALUE_TAG, _VALUE_FLOAT, _VALUE_TENSOR = 1, 1, 2, 8
_TENSOR_CONTENT, _TENSOR_FLOAT, _TENSOR_DOUBLE = 4, 5, 6
_MAX_CHECKED_BYTES = 1024
"""Length up to which the checksum of a record is checked. Scalars are shorter; images are not read."""


def read_event_folder(folder: Path, files: Sequence[Path]) -> ImportedRun:
    """Read the scalars of one run, whose files are named in order of time. Raises UserError for damage."""
    cut_files: list[Path] = []
    events = [event for file in sorted(files) for event in _scalars(file, cut_files)]
    frame = frame_of_rows(rows_by_step(events))
    return ImportedRun(
        str(folder), folder.as_posix(), KIND, frame, {"run_name": folder.name}, is_cut=bool(cut_files)
    )


def _scalars(file: Path, cut_files: list[Path]) -> Iterator[tuple[int, str, float]]:
    """Yield (step, tag, value) in order of writing."""
    for event in _records(file, cut_files):
        try:
            step = wire.integer(event, _EVENT_STEP) or 0
            for summary in wire.messages(event, _EVENT_SUMMARY):
                for value in wire.messages(summary, _SUMMARY_VALUE):
                    number = _number(value)
                    if number is not None:
                        yield step, wire.text(value, _VALUE_TAG), number
        except wire.WireError as error:
            raise UserError(f"{file}: is not a TensorBoard event file ({error})") from error


def _number(value: bytes) -> float | None:
    """Return the number of a summary value, plain or as a tensor of one element; None for anything else."""
    for content in wire.messages(value, _VALUE_FLOAT):
        return wire.unpack_float(content)
    for tensor in wire.messages(value, _VALUE_TENSOR):
        for field in (_TENSOR_FLOAT, _TENSOR_DOUBLE, _TENSOR_CONTENT):
            for content in wire.messages(tensor, field):
                if len(content) in (4, 8):
                    return wire.unpack_float(content)
    return None


def _records(file: Path, cut_files: list[Path]) -> Iterator[bytes]:
    """Yield the records of a TFRecord file: length, its checksum, content, its checksum. A file that
    ends within a record is added to `cut_files`. Raises UserError for a wrong checksum."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        while header := stream.read(12):
            if len(header) < 12:
                cut_files.append(file)
                return
            length, length_sum = struct.unpack("<QI", header)
            if _masked_crc(header[:8]) != length_sum:
                raise UserError(
                    f"{file}: is damaged, or no TensorBoard event file (byte {stream.tell() - 12})"
                )
            if stream.tell() + length + 4 > size:
                cut_files.append(file)
                return
            content, content_sum = stream.read(length), stream.read(4)
            is_short = length <= _MAX_CHECKED_BYTES
            if is_short and _masked_crc(content) != struct.unpack("<I", content_sum)[0]:
                raise UserError(f"{file}: is damaged at byte {stream.tell() - 4 - length}")
            yield content


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC_TABLE = _crc_table()


def _masked_crc(content: bytes) -> int:
    """Return CRC-32C (Castagnoli), rotated and shifted as TFRecord files store it."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 255]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
