"""Room on the disk of the cache for the shards of a source: checked before they are built, and said in one
sentence where it ends."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.core.cache.cache_dir import VARIABLE, cache_root
from harness.core.errors import UserError, cause_chain
from harness.core.number_format import format_bytes
from harness.data.shards.encoding import Encoding
from harness.data.text_sources.source import Source
from harness.data.text_sources.tokens_per_byte import tokens_per_byte

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
"""Numbers of the errors of a disk, or of a quota, that is full."""


def shard_bytes(source: Source, encoding: Encoding, text_bytes: int) -> int:
    """Return the estimated bytes of all shards of a source of `text_bytes` bytes of text."""
    ratio = tokens_per_byte(encoding.tokenizer, encoding.codec, source)
    return round(text_bytes * ratio * encoding.codec.dtype.itemsize)


def check_room(source: Source, draft: Path, estimate: int) -> None:
    """Raise UserError if the disk of a draft has less room than the shards need that are not there yet."""
    left = estimate - sum(entry.stat().st_size for entry in os.scandir(draft))
    if left > (free := shutil.disk_usage(draft).free):
        raise UserError(_sentence(source, free, left))


@contextmanager
def as_full_disk(source: Source, draft: Path, estimate: int) -> Iterator[None]:
    """Say in one sentence that the disk became full."""
    try:
        yield
    except (OSError, UserError) as error:
        causes = (cause for cause in cause_chain(error) if isinstance(cause, OSError))
        if not any(cause.errno in FULL_DISK for cause in causes):
            raise
        num_bytes = sum(entry.stat().st_size for entry in os.scandir(draft)) if draft.exists() else 0
        free = shutil.disk_usage(cache_root()).free
        raise UserError(_sentence(source, free, max(0, estimate - num_bytes))) from error


def _sentence(source: Source, free: int, left: int) -> str:
    return (
        f"{cache_root()}: the tokens of {source.key}.path={source.path} need some {format_bytes(left)} more, "
        f"and this disk has {format_bytes(free)} free. Make room (`harness cache` shows what is there) or "
        f"name another folder with {VARIABLE}=FOLDER, then start again: what is built stays."
    )
