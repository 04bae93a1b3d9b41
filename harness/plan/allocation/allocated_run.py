"""Runs with the chips and the layout that they were given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.core.errors import UserError
from harness.plan.cluster.clusters import Cluster, Partition
from harness.plan.cost_model.layouts import Layout
from harness.plan.cost_model.model_size import ModelShape
from harness.plan.predict import CostPrediction, predict

Block = list[ModelShape]
"""Runs that get equally many chips, and one layout."""


@dataclass(frozen=True)
class AllocatedRun:
    """One run with its chips."""

    model: ModelShape
    kind: str
    chips: int
    """Whole fast domains; `prediction.devices` of them are in use."""
    prediction: CostPrediction | None
    slot: int | None = None
    """Which of as many chips it takes its turn on; None: it has its own from the start."""
    start_days: float = 0.0
    """Days until its turn, without interruptions."""
    refusal: str = ""
    """Why it cannot run as announced, where it cannot."""


PlaceBlock = Callable[[Block, Partition, int], list[AllocatedRun]]


def makespan(members: Sequence[AllocatedRun]) -> float:
    """Days until the last run that can run has ended, without interruptions."""
    return max(map(predicted_days, members), default=0.0)


def allocation_rank(blocks: Sequence[Sequence[AllocatedRun]]) -> tuple[int, float]:
    """How good shares are: first that all fit, then that the last ends soon."""
    members = flatten_blocks(blocks)
    return sum(member.prediction is None for member in members), makespan(members)


def flatten_blocks(blocks: Sequence[Sequence[AllocatedRun]]) -> list[AllocatedRun]:
    return [member for block in blocks for member in block]


def predicted_days(member: AllocatedRun) -> float:
    days = member.prediction.days if member.prediction else None
    return days.value if days else 0.0


class LayoutFinder:
    """Places a block on so many chips of one kind, and remembers what it found by the models' sizes."""

    def __init__(self, cluster: Cluster):
        self.cluster = cluster
        self.cache: dict[tuple[ModelShape, str, int, Layout | None], tuple[str, CostPrediction | str]] = {}
        """With the name of the model that was asked for."""

    def __call__(self, block: Block, part: Partition, chips: int) -> list[AllocatedRun]:
        """Each in the layout that is best for itself; where those differ, all in that of them with which the
        block ends first: a pair is only compared on the same mesh."""
        separate = [self.allocate(model, part, chips) for model in block]
        layouts = {member.prediction.layout for member in separate if member.prediction}
        if len(layouts) < 2:
            return separate
        shared_layouts = [
            [self.allocate(model, part, chips, layout) for model in block] for layout in layouts
        ]
        return min(shared_layouts, key=lambda members: allocation_rank([members]))

    def allocate(
        self, model: ModelShape, part: Partition, chips: int, layout: Layout | None = None
    ) -> AllocatedRun:
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
        if not prediction.fits:
            return f"{model.name} does not fit in the layout of its sibling ({prediction.layout})."
        return prediction
