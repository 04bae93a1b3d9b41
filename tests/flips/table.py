"""The table: a row for each kind of file."""

from __future__ import annotations

from collections.abc import Sequence

from tests.flips.judging import Outcome

_HEAD = ("file", "flips", "told", "no number touched", "healed", "wrong")


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the table in Markdown, rows in order of first mention, with a sum."""
    kinds = list(dict.fromkeys(outcome.flip.kind.name for outcome in outcomes))
    rows = [[kind, *_counts([each for each in outcomes if each.flip.kind.name == kind])] for kind in kinds]
    rows.append(["all", *_counts(outcomes)])
    lines = [" | ".join(row) for row in (_HEAD, ["---", *["---:"] * (len(_HEAD) - 1)], *rows)]
    return "\n".join(f"| {line} |" for line in lines)


def _counts(outcomes: Sequence[Outcome]) -> list[str]:
    told = sum(bool(each.told) for each in outcomes)
    untouched = sum(not each.told and not each.faults for each in outcomes)
    healed = sum(each.healed for each in outcomes)
    wrong = sum(bool(each.faults) for each in outcomes)
    return [str(number) for number in (len(outcomes), told, untouched, healed, wrong)]
