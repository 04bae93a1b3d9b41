"""Types and bounds of values that were read from a record, which may be damaged or a stranger's."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

MAX_INT = 2**63
Record = TypeVar("Record")


def parse_record(
    record_type: type[Record], content: Mapping[str, Any] | None, *, finite: bool = True
) -> Record | None:
    """Build a dataclass from JSON; None without content, or if its keys or values do not fit the fields."""
    try:
        record = record_type(**content) if content is not None else None
    except TypeError:
        return None
    return record if record is not None and fields_fit(record, finite=finite) else None


def fields_fit(record: Any, *, finite: bool = True) -> bool:
    """Return whether fields have their types, and numbers 64 bits; `finite` refuses NaN and infinities."""
    return all(fits(getattr(record, name), hint, finite) for name, hint in _field_hints(type(record)))


def fits(value: Any, hint: Any, finite: bool = True) -> bool:
    """Return whether a value has the type of an annotation. A JSON list fits a tuple, an integer a float."""
    origin, arguments = _origin_and_arguments(hint)
    if origin is UnionType:
        return any(fits(value, part, finite) for part in arguments)
    if origin is Any:
        kind = type(value)
        return kind not in (int, float, list, dict) or fits(value, kind, finite)
    if origin is int or (origin is float and isinstance(value, int)):
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < MAX_INT
    if origin is float:
        return isinstance(value, float) and (math.isfinite(value) or not finite)
    if origin is dict and isinstance(value, dict):
        hints = arguments or (Any, Any)
        return all(fits(k, hints[0], finite) and fits(v, hints[1], finite) for k, v in value.items())
    if origin in (list, tuple) and isinstance(value, list | tuple):
        hints = arguments if origin is tuple else (arguments or (Any,)) * len(value)
        return len(hints) == len(value) and all(
            fits(item, part, finite) for item, part in zip(value, hints, strict=True)
        )
    return isinstance(value, NoneType if origin is None else origin)


@functools.cache
def _origin_and_arguments(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    return get_origin(hint) or hint, get_args(hint)


@functools.cache
def _field_hints(record: type) -> list[tuple[str, Any]]:
    """Return the names and annotations of the fields of a record type."""
    hints = get_type_hints(record)
    return [(field.name, hints[field.name]) for field in dataclasses.fields(record)]
