"""Imports of a process that trains, without what only an interactive session needs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

IPYTHON = "IPython"


@contextmanager
def hide_ipython() -> Iterator[None]:
    """Let imports inside this block not find IPython, which flax and treescope import wherever it is
    installed, and do without elsewhere. A module of a user may import it afterwards."""
    is_hidden = IPYTHON not in sys.modules
    if is_hidden:
        sys.modules[IPYTHON] = None  # pyright: ignore[reportArgumentType] (an import raises ImportError)
    try:
        yield
    finally:
        if is_hidden:
            del sys.modules[IPYTHON]
