"""Location of the compilers for devices that are not here (`make plan-extras`)."""

from __future__ import annotations

from pathlib import Path

PLAN_VENV = Path(__file__).parents[3] / ".venv-plan"
"""Folder of the environment, beside the Makefile's `.venv` that it extends."""


def plan_python() -> Path | None:
    """Return the interpreter of the optional environment; None if it was not made to the end."""
    python = PLAN_VENV / "bin" / "python"
    return python if (PLAN_VENV / "ready").is_file() and python.exists() else None
