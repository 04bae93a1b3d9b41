"""The structure of the package only improves: every measure of `python -m tests.house` keeps its limit."""

import pytest

from tests.house.limits import LIMITS
from tests.house.table import measures, within_limit


@pytest.mark.parametrize("key", LIMITS)
def test_the_house_keeps_its_limits(key: str) -> None:
    row = measures()[key]
    offenders = "\n".join(str(found) for found in row.findings)
    assert within_limit(row), (
        f"{row.title}: {row.shown_value}, limit {LIMITS[key]:g}. {row.mend}\n{offenders}"
    )
