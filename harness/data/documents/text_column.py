"""Column of texts: values by its name, and the sentences for those that are no text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.errors import UserError, did_you_mean

Place = Callable[[], str]
"""Words for the place of a value, such as `line 7 of a.jsonl`, which are wanted only for a message."""


@dataclass(frozen=True)
class TextColumn:
    """Column of a file. `key` is the config key of the source and `path` its value, for messages."""

    file: Path
    name: str
    key: str
    path: str

    @property
    def where(self) -> str:
        """Words that name the file."""
        return f"{self.key}.path={self.path}: {self.file.name}"

    def file_place(self) -> str:
        """Return the file as a `Place`."""
        return self.file.name

    def value(self, row: dict[str, Any], place: Place) -> Any:
        """Return the value of a JSON object. Dots lead into objects within it. Raises UserError."""
        if self.name in row:
            return row[self.name]
        node: Any = row
        for part in self.name.split("."):
            if node is None:
                return None
            if isinstance(node, list):
                raise self.in_list(place)
            if not isinstance(node, dict) or part not in node:
                raise self.missing(row, place)
            node = node[part]
        return node

    def text(self, value: Any, place: Place) -> str:
        """Return the text of a value. Raises UserError."""
        if not isinstance(value, str | None):
            raise self.no_text(type(value).__name__, place)
        try:
            (value or "").encode()
        except UnicodeEncodeError as error:  # JSON can hold it, UTF-8 cannot
            half = f"\\u{ord(error.object[error.start]):04x}"
            raise UserError(
                f"{self.key}.path={self.path}: {place()} holds {half}, half of a surrogate pair and no "
                "character. Remove it, or write the whole pair."
            ) from None
        return value or ""

    def missing(self, present: Iterable[str], place: Place) -> UserError:
        """Return the error for a column that is not there."""
        names = [*present]
        guess = did_you_mean(self.name, names) if names else "it has no columns. Give a file of documents."
        return UserError(f"{self.key}.column={self.name} is not in {place()} of {self.path}: {guess}")

    def no_text(self, kind: str, place: Place, way_out: str = "name a column of text") -> UserError:
        """Return the error for values of another kind."""
        return UserError(f"{self.key}.column={self.name} holds {kind} in {place()} of {self.path}: {way_out}")

    def tokens_in_list(self, place: Place) -> UserError:
        """Return the error for a column of lists of integers, which can be read in place only as Arrow."""
        command = f"datasets.load_dataset('parquet', data_files='{self.file.name}', split='train')"
        return self.no_text(
            "lists of integers",
            place,
            f"tokens are read from Arrow. Write them with `{command}.save_to_disk('FOLDER')`, and name "
            "FOLDER.",
        )

    def in_list(self, place: Place) -> UserError:
        """Return the error for a column inside a list, of which a row has many values."""
        return self.no_text(
            "a list", place, "a row must have one text. Join the texts of each row, or name another column."
        )
