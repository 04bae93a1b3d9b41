"""What a run would cost on a machine that is not here, with the evidence of each number named."""

from harness.plan.account import Account, account
from harness.plan.clusters import Cluster, load
from harness.plan.layouts import Layout
from harness.plan.model import ModelShape, decoder, from_facts
from harness.plan.partition import share_out
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
