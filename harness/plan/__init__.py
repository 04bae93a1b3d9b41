"""Cost of training on a machine that is not here, each number with its interval and evidence.

The room can be called: `harness.plan(overrides)` is `harness.api.request_plan.plan`, also once the room has
taken the place of that function in the package.
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
    """Room that is called like the function of its name."""

    def __call__(self, overrides: Sequence[str]) -> OpenedPlan:
        """Predict what a sweep takes, as `harness plan` does. Raises UserError if it is refused."""
        from harness.api.request_plan import plan

        return plan(overrides)


sys.modules[__name__].__class__ = CallableRoom
