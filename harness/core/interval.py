"""A value with the ends of its interval."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """A value with the ends of its interval."""

    value: float
    low: float
    high: float
