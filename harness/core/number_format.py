"""Text of numbers and durations, the same in every table, chart and message.

A value that is missing (None) or not finite is shown as a dash.
"""

from __future__ import annotations

import math
from typing import Any

from harness.core.interval import Interval

MISSING = "–"
GIB = 2.0**30
"""Bytes."""
TIME_UNITS = (("days", 1.0), ("hours", 24.0), ("minutes", 1440.0), ("seconds", 86_400.0))
"""Units of time, and their number per day."""


def plain_text(value: Any) -> str:
    """Return the text on one line, with control characters (such as terminal escapes) replaced by '?'."""
    text = " ".join(str(value).split())
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def format_number(value: float | None, digits: int = 3) -> str:
    """Return `digits` significant digits, with an exponent only below 1e-4 or from a million on."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    size = math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{max(0, digits - 1 - size)}f}"


def format_interval(amount: Interval | None, factor: float = 1.0) -> str:
    """Return `value [low, high]`, each times `factor` to convert the unit."""
    if amount is None:
        return MISSING
    value, low, high = (format_number(factor * end) for end in (amount.value, amount.low, amount.high))
    return f"{value} [{low}, {high}]"


def format_count(value: float | None) -> str:
    """Return three digits with k, M, B or T: 1234567 as 1.23M."""
    if value is None or not math.isfinite(value):
        return MISSING
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if limit <= abs(value) < 1e15:
            return f"{value / limit:.3g}{unit}"
    return format_scientific(value) if abs(value) >= 1e15 else f"{value:.3g}"


def format_si(value: float) -> str:
    """Return three digits with an SI prefix, to be followed by a unit: 1234567 as 1.23 M."""
    if abs(value) < 1000:
        return f"{value:.3g}"
    for prefix in ("k", "M", "G", "T", "P", "E"):
        value /= 1000
        if abs(value) < 1000:
            return f"{value:.3g} {prefix}"
    return f"{value / 1000:.3g} Z"


def format_bytes(number: float) -> str:
    """Return bytes with one decimal and a binary unit, as in 3.1 GiB."""
    if number < 1024:
        return f"{number:.0f} bytes"
    for unit in ("KiB", "MiB", "GiB"):
        number /= 1024
        if number < 1024:
            return f"{number:.1f} {unit}"
    return f"{number / 1024:.1f} TiB"


def choose_memory_unit(largest: float) -> tuple[str, float]:
    """Return the name and the bytes of the unit for amounts up to `largest` bytes."""
    return ("GiB", GIB) if largest > GIB else ("MiB", GIB / 1024)


def choose_time_unit(days: float | None) -> tuple[str, float]:
    """Return the longest unit of which `days` is at least 1, and its number per day; days for None."""
    return next((unit for unit in TIME_UNITS if days is None or days * unit[1] >= 1), TIME_UNITS[-1])


def format_scientific(value: float) -> str:
    """Return three digits without the plus of a large exponent: 1.2e18, not 1.2e+18."""
    return f"{value:.3g}".replace("e+", "e")


def format_loss(value: float | None) -> str:
    """Return a loss with four decimals."""
    return _finite(value, ".4f")


def format_signed(value: float | None) -> str:
    """Return a difference of losses with its sign and four decimals."""
    return _finite(value, "+.4f")


def format_correlation(value: float | None) -> str:
    """Return a correlation with two decimals."""
    return _finite(value, ".2f")


def format_percent(share: float | None) -> str:
    """Return a share as per cent with three digits: 0.0123 as 1.23 %."""
    return MISSING if share is None or not math.isfinite(share) else f"{100 * share:.3g} %"


def _finite(value: float | None, spec: str) -> str:
    return MISSING if value is None or not math.isfinite(value) else format(value, spec)


def format_p_value(value: float | None) -> str:
    """Return a p-value with three decimals and no leading zero: .020, or <.001."""
    if value is None:
        return MISSING
    return "<.001" if value < 0.001 else f"{value:.3f}".lstrip("0")


def format_p_statement(value: float | None) -> str:
    """Return `p = .020` or `p < .001` for use in a sentence."""
    text = format_p_value(value)
    return f"p < {text[1:]}" if text.startswith("<") else f"p = {text}"


def format_ratio(value: float | None) -> str:
    """Return a ratio to the control as a change in per cent: 1.004 as +0.4 %; 1 as `equal`; None as ''."""
    if value is None or value == 1:
        return "" if value is None else "equal"
    percent = 100 * (value - 1)
    return f"{percent:+.0f} %" if abs(percent) >= 10 else f"{percent:+.2g} %"


def format_clock(seconds: float) -> str:
    """Return a duration in seconds as 1:02, or 3:04:05."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
