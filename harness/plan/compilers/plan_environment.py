"""Where the compilers for machines that are not here are: an environment of their own, `make plan-extras`."""

from __future__ import annotations

from pathlib import Path

PLAN_VENV = Path(__file__).parents[3] / ".venv-plan"
"""Beside the `.venv` of the Makefile, on top of which it lies."""


def plan_python() -> Path | None:
    """The interpreter of the optional environment; None where it was not made to the end."""
    python = PLAN_VENV / "bin" / "python"
    return python if (PLAN_VENV / "ready").is_file() and python.exists() else None
