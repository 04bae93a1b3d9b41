"""The result of one measurement, and its limit."""

from dataclasses import dataclass

from tests.house.source import Finding


@dataclass(frozen=True)
class Measure:
    """One row of the table."""

    key: str
    """Name of its limit in `limits.LIMITS`."""
    title: str
    value: float
    findings: list[Finding]
    mend: str
    """One sentence: how to mend an offender."""
    unit: str = ""
    counted: int | None = None
    """Number of things that a share is taken of."""

    @property
    def shown_value(self) -> str:
        share = f"{self.value:.1f}" if self.unit == "%" else f"{self.value:g}"
        total = f" of {self.counted:,}" if self.counted is not None else ""
        return f"{share} {self.unit}{total}" if self.unit else f"{self.value:,.0f}{total}"


def share(part: int, total: int) -> float:
    """Percentage, 0 of nothing."""
    return 100 * part / total if total else 0.0
