"""A cluster of Ray on this machine: a head and a node, each with three processors to give away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
STORE = 80 << 20
CPUS = 3
"""So that neither two bundles of two, nor one of two and two of one, are on one node."""
SOON = {
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 3,
    "health_check_initial_delay_ms": 0,
}
"""So that a lost node is noticed in seconds."""
PACE = "0.2"
"""Seconds a step of the fake worker, of 20."""


@contextmanager
def ray_cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    os.environ |= {"PYTHONPATH": str(ROOT), "FAKE_PACE": PACE, "RAY_USAGE_STATS_ENABLED": "0"}
    head = {
        "num_cpus": CPUS,
        "object_store_memory": STORE,
        "include_dashboard": False,
        "_system_config": SOON,
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        add_node(cluster)
        cluster.wait_for_nodes(timeout=60)
        yield cluster
    finally:
        cluster.shutdown()


def add_node(cluster: Any) -> Any:
    return cluster.add_node(num_cpus=CPUS, object_store_memory=STORE)
