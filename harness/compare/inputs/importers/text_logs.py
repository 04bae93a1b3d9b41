"""Text logs: evaluations found by a regular expression, one's own or that of a known trainer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.compare.inputs.importers.imported_run import ImportedRun, frame_of_rows
from harness.core.errors import UserError

_NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|nan|inf)"
_STEP, _LOSS, _RATE = r"(?P<step>\d+)", rf"(?P<loss>{_NUMBER})", rf"(?P<learning_rate>{_NUMBER})"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_NEEDED = ("step", "loss")


@dataclass(frozen=True)
class _LinePattern:
    """Lines of one trainer."""

    trainer: str
    evaluation: re.Pattern[str]
    training: re.Pattern[str] | None = None
    """Line whose values the next evaluation takes over; None if it says nothing that an evaluation needs."""


PRESETS = (
    _LinePattern("modded-nanogpt", re.compile(rf"\bstep:{_STEP}/\d+ val_loss:{_LOSS}")),
    _LinePattern("nanoGPT", re.compile(rf"\bstep {_STEP}: train loss {_NUMBER}, val loss {_LOSS}")),
    _LinePattern(
        "llm.c",
        re.compile(rf"^s:{_STEP} tel:{_LOSS}"),
        re.compile(rf"^s:(?P<train_step>\d+) trl:{_NUMBER} lr:{_RATE}"),
    ),
    _LinePattern(
        "Megatron",
        re.compile(
            rf"validation loss at iteration {_STEP}(?: on validation set)? \| lm loss value: {_LOSS}",
        ),
        re.compile(
            r"iteration +(?P<train_step>\d+)/ *\d+ \| consumed samples: +(?P<consumed_samples>\d+) \|"
            rf"(?:.*?learning rate: {_RATE})?"
        ),
    ),
    _LinePattern(
        "MaxText",
        re.compile(
            rf"(?:eval metrics after step: {_STEP}|[Cc]ompleted eval after train step (?P<step_>\d+)), "
            rf"loss={_LOSS}"
        ),
    ),
    _LinePattern("torchtitan", re.compile(rf"\bvalidate step: +{_STEP} +loss: +{_LOSS}")),
)


def custom_pattern(expression: str) -> _LinePattern:
    """Return the pattern of `--lines`. Raises UserError if it is none, or names no step or no loss."""
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise UserError(f"--lines: '{expression}' is no regular expression ({error})") from error
    for column in _NEEDED:
        if column not in pattern.groupindex:
            raise UserError(
                f"--lines: '{expression}' names no {column}. Put (?P<{column}>...) around it, as in "
                r"'it (?P<step>\d+) .*val=(?P<loss>\S+)'."
            )
    return _LinePattern("--lines", pattern)


def read_text_log(file: Path, expression: str | None, content: bytes | None = None) -> ImportedRun:
    """Read the evaluations of one run, from the content of a file that is compressed. Raises UserError for
    none, and for those of two trainers."""
    try:
        content = file.read_bytes() if content is None else content
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error})") from error
    lines = _COLOUR.sub("", content.decode("utf-8-sig", errors="replace")).splitlines()
    patterns = [custom_pattern(expression)] if expression else PRESETS
    rows = {pattern.trainer: matches for pattern in patterns if (matches := _rows(lines, pattern))}
    if len(rows) != 1:
        trainers = ", ".join(rows or [pattern.trainer for pattern in patterns])
        problem = "has evaluations of several trainers" if rows else "is no table, and has no evaluation"
        raise UserError(
            f"{file}: {problem} (tried: {trainers}). Say how an evaluation reads with --lines 'REGEX', with "
            "(?P<step>...) and (?P<loss>...) in it."
        )
    ((trainer, evaluations),) = rows.items()
    kind = "text log" if expression else f"{trainer} log"
    return ImportedRun(
        str(file), file.as_posix(), kind, frame_of_rows(evaluations), {"run_name": file.stem}, True
    )


def _rows(lines: Sequence[str], pattern: _LinePattern) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    last_training: dict[str, str] = {}
    for line in lines:
        if match := pattern.evaluation.search(line):
            rows.append(last_training | _groups(match))
        elif pattern.training and (match := pattern.training.search(line)):
            last_training = _groups(match)
    return rows


def _groups(match: re.Match[str]) -> dict[str, str]:
    """Return the groups that matched. A `_` at the end of a name marks the second place of a group."""
    return {name.rstrip("_"): value for name, value in match.groupdict().items() if value is not None}
