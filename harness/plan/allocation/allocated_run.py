"""Runs with the chips and the layout that they get."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.core.errors import UserError
from harness.estimate.clusters import Cluster, Partition
from harness.estimate.layouts import Layout
from harness.estimate.model_size import ModelShape
from harness.plan.predict import CostPrediction, predict

SHARED_LAYOUT = "has the layout in which all runs of its block fit and end first; alone it has another"
"""Note of a run whose own best layout is not that of its block: a pair is compared on one mesh."""
Block = list[ModelShape]
"""Runs that get equally many chips and one layout."""


@dataclass(frozen=True)
class AllocatedRun:
    """Run with its chips."""

    model: ModelShape
    kind: str
    chips: int
    """Number of chips, in whole fast domains; the layout uses `prediction.devices` of them."""
    prediction: CostPrediction | None
    slot: int | None = None
    """Index of the chips that this run shares with others in rounds; None: it has its own chips."""
    start_days: float = 0.0
    """Days until this run starts, without interruptions."""
    refusal: str = ""
    """Reason why the run fits nowhere; empty: it fits."""

    @property
    def days(self) -> float:
        """Return the days of training without interruptions; 0 if the run does not fit."""
        days = self.prediction.days if self.prediction else None
        return days.value if days else 0.0


PlaceBlock = Callable[[Block, Partition, int], list[AllocatedRun]]


def makespan(members: Sequence[AllocatedRun]) -> float:
    """Return the days until the last run that fits has ended, without interruptions."""
    return max((member.days for member in members), default=0.0)


def allocation_rank(blocks: Sequence[Sequence[AllocatedRun]]) -> tuple[int, float]:
    """Return (runs that do not fit, makespan in days) of an allocation: the smaller, the better."""
    members = flatten_blocks(blocks)
    return sum(member.prediction is None for member in members), makespan(members)


def flatten_blocks(blocks: Sequence[Sequence[AllocatedRun]]) -> list[AllocatedRun]:
    """Return the runs of all blocks in order."""
    return [member for block in blocks for member in block]


def _noted(member: AllocatedRun, own_best: AllocatedRun) -> AllocatedRun:
    """Return a run with a note if its block has taken its own best layout from it."""
    if not (
        member.prediction and own_best.prediction and member.prediction.layout != own_best.prediction.layout
    ):
        return member
    notes = (*member.prediction.notes, SHARED_LAYOUT)
    return dataclasses.replace(member, prediction=dataclasses.replace(member.prediction, notes=notes))


class LayoutFinder:
    """Finder of layouts for a block on chips of one kind, with a cache by the models' sizes. A cached value
    has the name of the model that was predicted."""

    def __init__(self, cluster: Cluster):
        self.cluster = cluster
        self.cache: dict[tuple[ModelShape, str, int, Layout | None], tuple[str, CostPrediction | str]] = {}

    def __call__(self, block: Block, part: Partition, chips: int) -> list[AllocatedRun]:
        """Return each run in its best layout. Where these differ, return all runs in the one of them with
        which the block ends first, since a pair is compared on one mesh only."""
        separate = [self.allocate(model, part, chips) for model in block]
        layouts = {member.prediction.layout for member in separate if member.prediction}
        if len(layouts) < 2:
            return separate
        candidates = [[self.allocate(model, part, chips, layout) for model in block] for layout in layouts]
        block_members = min(candidates, key=lambda members: allocation_rank([members]))
        return [_noted(member, own_best) for member, own_best in zip(block_members, separate, strict=True)]

    def allocate(
        self, model: ModelShape, part: Partition, chips: int, layout: Layout | None = None
    ) -> AllocatedRun:
        """Return one run in `layout` or the best one; with the refusal if it does not fit."""
        key = dataclasses.replace(model, name="", block=""), part.name, chips, layout
        if key not in self.cache:
            self.cache[key] = model.name, self._predict(model, part, chips, layout)
        name, result = self.cache[key]
        if isinstance(result, str):
            return AllocatedRun(model, part.name, chips, None, refusal=result.replace(name, model.name))
        return AllocatedRun(model, part.name, chips, dataclasses.replace(result, model=model))

    def _predict(
        self, model: ModelShape, part: Partition, chips: int, layout: Layout | None
    ) -> CostPrediction | str:
        try:
            prediction = predict(model, self.cluster, layout, kind=part.name, devices=chips)
        except UserError as error:
            return str(error)
        refusal = f"{model.name} does not fit in the layout of its sibling ({prediction.layout})."
        return prediction if prediction.fits else refusal
