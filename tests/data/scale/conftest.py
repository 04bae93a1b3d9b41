"""Folder for large files, which is removed after its test, and a cache of each test's own in it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

GB = 10**9
SIZE = int(float(os.environ.get("AB_TEST_GB", "1")) * GB)
"""Bytes of a corpus."""


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=os.environ.get("AB_TEST_FOLDER"), prefix="ab-data-") as name:
        monkeypatch.setenv("AB_HARNESS_CACHE", f"{name}/cache")
        yield Path(name)


@pytest.fixture
def needs_bytes(folder: Path) -> Callable[[int], None]:
    """Return a function that skips the test if the disk has less room."""

    def check(num_bytes: int) -> None:
        free = shutil.disk_usage(folder).free
        if free < 1.1 * num_bytes:
            pytest.skip(f"{folder} has {free / GB:.0f} GB of {num_bytes / GB:.0f} GB; set AB_TEST_FOLDER")

    return check
