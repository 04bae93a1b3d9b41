"""Cost of training on a machine that is not here, each number with its interval and evidence."""

from harness.estimate.clusters import Cluster, load_cluster
from harness.estimate.layouts import Layout
from harness.estimate.model_size import ModelShape, decoder_shape, shape_from_facts
from harness.plan.allocation.run_days import RunCosts, run_costs
from harness.plan.allocation.share_chips import allocate_chips
from harness.plan.predict import CostPrediction, EvidenceKind, PlanEstimate, predict

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
