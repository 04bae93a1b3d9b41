"""Conversion of results to plain data and to reproducible JSON text."""

from __future__ import annotations

import dataclasses
import json
import math
from enum import Enum
from typing import Any

from harness.compare.results.comparison import Comparison


def to_json(result: Any) -> Any:
    """Convert a result to dictionaries, lists, strings, finite numbers and None.

    Enums become their values, tuples lists, NaN and infinities None (JSON has neither).
    """
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return {f.name: to_json(getattr(result, f.name)) for f in dataclasses.fields(result)}
    if isinstance(result, dict):
        return {str(key): to_json(value) for key, value in sorted(result.items())}
    if isinstance(result, list | tuple):
        return [to_json(value) for value in result]
    if isinstance(result, Enum):
        return result.value
    to_scalar = getattr(result, "item", None)
    value = to_scalar() if to_scalar else result
    return None if isinstance(value, float) and not math.isfinite(value) else value


def dumps(comparison: Comparison, *, times: bool = True) -> str:
    """Return the JSON text of a comparison. Equal inputs give equal bytes, except for the key `times`."""
    content = to_json(comparison)
    if not times:
        content.pop("times")
    return json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"
