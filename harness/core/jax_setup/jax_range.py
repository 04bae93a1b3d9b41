"""Versions of JAX that were tried, against the installed one, which is not imported for it."""

from __future__ import annotations

import functools
import re
from importlib import metadata

from harness.core.errors import UserError
from harness.core.jax_setup.cpu_flags import CPU_FLAGS, unknown_flags

OLDEST, NEWEST = (0, 10, 2), (0, 12)
"""Oldest release and newest series that were tried. pyproject.toml lets in the same ones."""


def check_jax_version() -> None:
    """Raise UserError if no JAX is installed, or an older one than was tried."""
    if installed_jax() is None:
        raise UserError(f"jax is not installed; {_way_out()}.")
    if (_numbers() or OLDEST) < OLDEST:
        oldest = _text(OLDEST)
        raise UserError(f"jax {installed_jax()}: it is older than {oldest}, the oldest tried; {_way_out()}.")


def newer_jax_note() -> str:
    """Return a sentence about a JAX that is newer than any that was tried; "" for others. It is used all the
    same: what it lacks of private functions and flags is found out by trying."""
    if (_numbers() or NEWEST)[: len(NEWEST)] <= NEWEST:
        return ""
    missing_flags = unknown_flags(CPU_FLAGS)
    slowdown = f" Its XLA lacks {', '.join(missing_flags)}: slower on CPU." if missing_flags else ""
    newest = _text(NEWEST)
    return f"jax {installed_jax()}: it is newer than {newest}, the newest tried; {_way_out()}.{slowdown}"


@functools.cache
def installed_jax() -> str | None:
    """Return the version of the installed JAX, or None."""
    try:
        return metadata.version("jax")
    except metadata.PackageNotFoundError:
        return None


def _numbers() -> tuple[int, ...]:
    """Return the numbers of the version, such as (0, 12, 0, 1); empty if it does not begin with any."""
    start = re.match(r"[\d.]*\d", installed_jax() or "")
    return tuple(map(int, start[0].split("."))) if start else ()


def _way_out() -> str:
    end = _text((*NEWEST[:-1], NEWEST[-1] + 1))
    return f"install a tried one with `pip install 'jax>={_text(OLDEST)},<{end}'`"


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
