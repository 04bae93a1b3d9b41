"""Result of `harness verify --data` as text or JSON."""

from __future__ import annotations

from collections.abc import Sequence

from harness.cli.json_output.json_text import json_text
from harness.core.number_format import format_bytes, plain_text
from harness.inspection.verify_data import DataCheck


def data_checks_text(checks: Sequence[DataCheck], *, as_json: bool) -> str:
    """Return the comparison of each source as some lines of text, or all as JSON."""
    if as_json:
        same = not any(check.problems for check in checks)
        return json_text("verify_data", {"same": same, "sources": checks})
    return "\n".join(plain_text(line) for check in checks for line in _lines(check))


def _lines(check: DataCheck) -> list[str]:
    where, counts = f"{check.name} ({check.path})", ((check.files, "file"), (check.shards, "shard"))
    total = " and ".join(f"{count:,} {word}{'s' * (count != 1)}" for count, word in counts if count)
    size = format_bytes(check.bytes)
    is_or_are = "is" if check.files + check.shards == 1 else "are"
    sentence = f"{where}: {total}, {size}, {is_or_are} as recorded."
    sentences = [f"{where}: {text}." for text in (*check.problems, *check.notes)]
    return [sentence, *sentences] if total and not check.problems else sentences
