"""Cost of training on a machine that is not here, each number with its interval and evidence.

`harness.plan(overrides)` calls the room itself: it is the function `harness.api.request_plan.plan`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from harness.estimate.clusters import Cluster, load_cluster
from harness.estimate.layouts import Layout
from harness.estimate.model_size import ModelShape, decoder_shape, shape_from_facts
from harness.plan.allocation.run_days import RunCosts, run_costs
from harness.plan.allocation.share_chips import allocate_chips
from harness.plan.predict import CostPrediction, EvidenceKind, PlanEstimate, predict

if TYPE_CHECKING:
    from harness.report.opened_plan import OpenedPlan

__all__ = [
    "Cluster",
    "CostPrediction",
    "EvidenceKind",
    "Layout",
    "ModelShape",
    "PlanEstimate",
    "RunCosts",
    "allocate_chips",
    "decoder_shape",
    "load_cluster",
    "predict",
    "run_costs",
    "shape_from_facts",
]


class CallableRoom(ModuleType):
    """Room that can be called. A package has one attribute `plan`: its room, or a function of this name."""

    def __call__(self, overrides: Sequence[str]) -> OpenedPlan:
        """Predict what a sweep takes, as `harness plan` does. Raises UserError if it is refused."""
        from harness.api.request_plan import plan

        return plan(overrides)


sys.modules[__name__].__class__ = CallableRoom
