"""A sweep of unequal blocks, as a roster makes it: two pairs and three runs without a sibling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.records.paths import SweepDir
from harness.records.sweep import ledger
from tests.compare.synthetic import Draft, Recipe, write_sweep

UNIT = "mean squared error a value"
SCALES = {"image": 10**6, "1t": 10**7, "1p5t": 15 * 10**6, "6t": 6 * 10**7, "10t": 10**8}
PLACED = (
    "image/dit/seed0", "1t/mha/seed0", "1t/hybrid/seed0", "1p5t/mha/seed0", "1p5t/hybrid/seed0",
    "6t/mha/seed0", "10t/mha/seed0",
)  # fmt: skip


def unequal(path: Path, placed: Sequence[str] = PLACED, edit=None, **drawn) -> SweepDir:
    """Runs that are `placed` in the ledger, images among them. `edit` as in write_sweep."""

    def member(draft: Draft) -> bool:
        if f"{draft.scale}/{draft.variant}/seed{draft.seed}" not in placed:
            return False
        if draft.scale == "image":
            _as_images(draft)
        return edit is None or edit(draft) is not False

    variants = {"mha": 1.0, "hybrid": 1.3, "dit": 1.0}
    rule = {"hypothesis": "B loses nothing", "control": "mha", "family": ["hybrid"]}
    drawn["beside"] = {"rule": rule} | drawn.get("beside", {})
    settings = {"scales": SCALES, "variants": variants, "seeds": (0,), "with_steps": False} | drawn
    sweep = write_sweep(path, Recipe(**settings), member)
    ledger.append(sweep, "placement", {"runs": {name: {"lane": 0} for name in placed}})
    return sweep


def _as_images(draft: Draft) -> None:
    draft.facts["loss_unit"] = UNIT
    for rows in (draft.evals, *draft.branches.values()):
        rows[:] = [row | {"domain": "digits", "loss": 0.05 * row["loss"]} for row in rows[::2]]
