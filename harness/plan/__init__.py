"""What a run would cost on a machine that is not here, with the evidence of each number named."""

from harness.plan.allocation.run_days import Account, account
from harness.plan.allocation.share_chips import share_out
from harness.plan.cluster.clusters import Cluster, load
from harness.plan.cost_model.layouts import Layout
from harness.plan.cost_model.model_size import ModelShape, decoder, from_facts
from harness.plan.predict import Evidence, Number, Prediction, predict

__all__ = [
    "Account",
    "Cluster",
    "Evidence",
    "Layout",
    "ModelShape",
    "Number",
    "Prediction",
    "account",
    "decoder",
    "from_facts",
    "load",
    "predict",
    "share_out",
]
