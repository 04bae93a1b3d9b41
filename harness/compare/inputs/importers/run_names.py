"""Facts of a run in its path or name, found with the pattern of `--name`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from harness.core.errors import UserError, did_you_mean

_PLACE = re.compile(r"\{(?P<column>\w*)(?::(?P<expression>[^{}]+))?\}|(?P<any>\*)")


class NamePattern:
    """Pattern such as `runs/{variant}/{scale}-{seed}.csv`: `*` and `{}` stand for anything but a slash, and
    `{seed:[0-9]+}` for a regular expression."""

    def __init__(self, pattern: str, columns: Sequence[str]) -> None:
        """Read a pattern. Raises UserError for one that names no column, or a column that is none."""
        self.pattern = pattern.strip("/")
        self.columns = [match["column"] for match in _PLACE.finditer(self.pattern) if match["column"]]
        for column in self.columns:
            if column not in columns:
                raise UserError(
                    f"--name '{pattern}': '{column}' is no column of curves; {did_you_mean(column, columns)}"
                )
        if not self.columns or len({*self.columns}) < len(self.columns):
            raise UserError(
                f"--name '{pattern}': name each column once, as in 'runs/{{variant}}-{{scale}}-{{seed}}.csv'"
            )
        try:
            self._shortest, self._longest = (re.compile(self._expression(sign)) for sign in ("+?", "+"))
        except re.error as error:
            raise UserError(f"--name '{pattern}': is no pattern ({error})") from error

    def _expression(self, sign: str) -> str:
        parts, position = [], 0
        for match in _PLACE.finditer(self.pattern):
            parts.append(re.escape(self.pattern[position : match.start()]))
            expression = match["expression"] or f"[^/]{sign}"
            parts.append(f"(?P<{match['column']}>{expression})" if match["column"] else f"(?:{expression})")
            position = match.end()
        return "".join([*parts, re.escape(self.pattern[position:])])

    def find(self, name: str) -> dict[str, str] | None:
        """Return the columns that the end of a name gives, None if it is of another form. Raises UserError
        for a name that can be read in two ways."""
        num_parts = self.pattern.count("/") + 1
        path = PurePosixPath(name)
        for text in dict.fromkeys((name, str(path.with_suffix("")) if path.suffix else name)):
            end = "/".join(text.split("/")[-num_parts:])
            shortest, longest = self._shortest.fullmatch(end), self._longest.fullmatch(end)
            if not (shortest and longest):
                continue
            if shortest.groupdict() != longest.groupdict():
                column = next(c for c in self.columns if shortest[c] != longest[c])
                raise UserError(
                    f"--name '{self.pattern}': '{end}' can be read in two ways, {column}={shortest[column]} "
                    f"or {longest[column]}. Say what a place holds, such as {{{column}:[a-z]+}}."
                )
            return shortest.groupdict()
        return None

    def match(self, name: str) -> dict[str, str]:
        """Return the columns that the end of a name gives. Raises UserError if it is of another form."""
        columns = self.find(name)
        if columns is None:
            raise UserError(f"--name '{self.pattern}': '{name}' does not end like this")
        return columns
