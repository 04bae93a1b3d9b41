"""Numbers and durations as text, the same in every table, chart and message."""

from __future__ import annotations

import math
from typing import Any

NONE = "–"


def plain_text(value: Any) -> str:
    """Text of a config on one line: control characters (terminal escapes among them) become '?'."""
    text = " ".join(str(value).split())
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def number(value: float | None, digits: int = 3) -> str:
    """So many significant digits, without an exponent between .001 and a million."""
    if value is None or not math.isfinite(value):
        return NONE
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    size = math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{max(0, digits - 1 - size)}f}"


def count(value: float | None) -> str:
    """1234567 as 1.23M."""
    if value is None or not math.isfinite(value):
        return NONE
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if limit <= abs(value) < 1e15:
            return f"{value / limit:.3g}{unit}"
    return power(value) if abs(value) >= 1e15 else f"{value:.3g}"


def power(value: float) -> str:
    """1.2e+18 as 1.2e18."""
    return f"{value:.3g}".replace("e+", "e")


def loss(value: float | None) -> str:
    return NONE if value is None or not math.isfinite(value) else f"{value:.4f}"


def signed(value: float | None) -> str:
    return NONE if value is None or not math.isfinite(value) else f"{value:+.4f}"


def correlation(value: float | None) -> str:
    return NONE if value is None or not math.isfinite(value) else f"{value:.2f}"


def chance(value: float | None) -> str:
    """A p-value."""
    if value is None:
        return NONE
    return "<.001" if value < 0.001 else f"{value:.3f}".lstrip("0")


def p_is(value: float | None) -> str:
    """`p = .020` or `p < .001` inside a sentence."""
    text = chance(value)
    return f"p < {text[1:]}" if text.startswith("<") else f"p = {text}"


def ratio(value: float | None) -> str:
    """Against the control, in per cent of it; the control itself has none."""
    if value is None or value == 1:
        return "" if value is None else "equal"
    percent = 100 * (value - 1)
    return f"{percent:+.0f} %" if abs(percent) >= 10 else f"{percent:+.2g} %"


def clock(seconds: float) -> str:
    """1:02, or 3:04:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def unique(names: Any) -> list[str]:
    return [*dict.fromkeys(names)]


def short(number: float) -> str:
    """Three digits and a unit: 1.23 M."""
    for unit in ("", "k", "M", "G", "T", "P", "E"):
        if abs(number) < 1000:
            return f"{number:.3g} {unit}".rstrip() if not unit else f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} Z"


def size(number: float) -> str:
    """Two digits and a unit, as in 3.1 GiB."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} bytes" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"
