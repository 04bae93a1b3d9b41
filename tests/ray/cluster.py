"""A cluster of Ray on this machine: a head and a node, each with three processors to give away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.launcher.engines.ray.slice_shape import SLICE_LABEL

ROOT = Path(__file__).parents[2]
STORE = 80 << 20
CPUS = 3
"""So that two bundles of two are not on one node."""
OWN = {"slot": 1, "TPU": 4}
"""On each node: a name of our own, and chips that are not there."""
SOON = {
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 3,
    "health_check_initial_delay_ms": 0,
}
"""So that a lost node is noticed in seconds."""
PACE = "0.02"
"""Seconds a step of the fake worker, of 20."""


@contextmanager
def ray_cluster(cpus: int = CPUS, nodes: int = 2) -> Iterator[Any]:
    """`nodes`: with the head, each with so many processors."""
    from ray.cluster_utils import Cluster  # pyright: ignore[reportMissingImports]  # an optional dependency

    os.environ |= {"PYTHONPATH": str(ROOT), "FAKE_PACE": PACE, "RAY_USAGE_STATS_ENABLED": "0"}
    head = {
        "num_cpus": cpus,
        "resources": OWN,
        "labels": {SLICE_LABEL: "slice-0"},
        "object_store_memory": STORE,
        "include_dashboard": False,
        "_system_config": SOON,
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(nodes - 1):
            add_node(cluster)
        yield cluster
    finally:
        cluster.shutdown()


def add_node(cluster: Any) -> Any:
    """Returns when the head knows it."""
    slices = {SLICE_LABEL: "slice-1"}
    return cluster.add_node(num_cpus=CPUS, resources=OWN, labels=slices, object_store_memory=STORE)


def groups(cluster: Any) -> list[dict[str, Any]]:
    """Places that were not given back."""
    listed = cluster.global_state.placement_group_table(None).values()
    return [each for each in listed if each["state"] != "REMOVED"]


def actors(cluster: Any) -> list[dict[str, Any]]:
    """Those that have not ended."""
    return [each for each in cluster.global_state.actor_table(None).values() if each["State"] != "DEAD"]
