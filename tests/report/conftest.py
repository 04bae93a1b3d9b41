"""One sweep on disk and its page, shared by the tests that only read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.compare.results.comparison import Comparison
from harness.records.paths import SweepDir
from harness.report.page.render import write_report
from tests.compare.synthetic import Recipe, write_sweep
from tests.report.example import comparison

HOSTILE = "<img src=x onerror=\"document.title='owned'\">'];alert(1)||['"
ENDS = "</script><script>document.title='owned'</script>\u2028"


def sweep_of(folder: Path, variants: tuple[str, ...], **drawn: Any) -> SweepDir:
    effects = dict(zip(variants, (1.0, 1.04, 0.7), strict=False))
    return write_sweep(folder, Recipe(variants=effects, **drawn))


@pytest.fixture(scope="session")
def told() -> Comparison:
    return comparison()


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> SweepDir:
    return sweep_of(tmp_path_factory.mktemp("plain"), ("mha", "hybrid", "short"), steps=400)


@pytest.fixture(scope="session")
def page(sweep: SweepDir, told: Comparison) -> Path:
    return write_report(sweep, told)


@pytest.fixture(scope="session")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page in which every text that a user may choose tries to run."""
    names = ("mha", HOSTILE, "a,b\"c'\nd")
    hostile = sweep_of(tmp_path_factory.mktemp("hostile"), names)
    return write_report(hostile, comparison(names, verdict=f"INVALID: {ENDS} and {HOSTILE}."))
