"""The connection to a Ray cluster, or to one that is started here; each problem is a UserError."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.config.schema.engine import RayConfig
from harness.core.errors import UserError
from harness.launcher.engines.engine_api import WorkerSpec
from harness.launcher.engines.ray import slice_shape

CONNECT_TIMEOUT_SECONDS = 5.0
"""Seconds in which a head must accept a connection; Ray itself would try for ten minutes."""
CONNECT_ATTEMPTS = "5"
"""Number of attempts by Ray, a second each, to join a head that answers. Its default is 20, all printed."""
LOST_AFTER_SECONDS = 40.0
"""Seconds without an answer after which a head is lost. Ray itself ends the process after a minute."""
CHECK_INTERVAL_SECONDS = 5.0
"""Seconds between two checks of the head."""
HTTP2_SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""An empty SETTINGS frame of HTTP/2: length, type, flags and stream."""

Node = Mapping[str, Any]
"""An entry of `ray.nodes()`."""


@dataclass
class HeadMonitor:
    """Monitor of a cluster's head at `host:port`. Empty for a Ray that was started here and ends with us."""

    address: str = ""
    checked_at: float = float("-inf")
    answered_at: float = float("-inf")
    error: OSError | None = None

    def check(self, now: float) -> None:
        """Raise UserError if the head has been silent for LOST_AFTER_SECONDS. `now`: seconds on any clock."""
        reachable = self.is_reachable(now, CHECK_INTERVAL_SECONDS)
        if not reachable and now - self.answered_at >= LOST_AFTER_SECONDS:
            raise UserError(
                f"engine.ray.address={self.address}: the head was lost ({self.error}), and its cluster "
                "with it. Give the same command with another cluster to continue from the checkpoints"
            ) from self.error

    def is_reachable(self, now: float, max_age: float = 0.0) -> bool:
        """Return whether the head answered the last try, which is at most `max_age` seconds old."""
        if self.address and now - self.checked_at > max_age:
            self.checked_at, self.error = now, None
            try:
                _try_connect(self.address, 1.0)
                self.answered_at = now
            except OSError as error:
                self.error = error
        return self.error is None


def import_ray(config: RayConfig) -> Any:
    """Import the package `ray`. Raises UserError if it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if config.address is not None:  # Ray reads it when it is imported
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", CONNECT_ATTEMPTS)
    try:
        importlib.import_module("ray.util.scheduling_strategies")
        return importlib.import_module("ray")
    except ImportError as error:
        raise UserError(
            f"engine=ray: the package ray cannot be imported ({error}). `pip install 'ab-harness[ray]'`, or "
            "train here with engine=local"
        ) from error


def connect(ray: Any, config: RayConfig, namespace: str) -> None:
    """Connect to the cluster, or start one here. Raises UserError if there is no head of the same version."""
    address = config.address or "local"
    if config.address and config.address != "auto":
        _check_address(config.address)
    options = {"log_to_driver": False, "configure_logging": False}
    options |= {"include_dashboard": False} if config.address is None else {}
    logging.getLogger("ray").setLevel(logging.ERROR)  # `configure_logging` would print more, not less
    try:
        # Ray's processes put the driver's current folder before the standard library.
        with _keep_signal_handlers(), contextlib.chdir("/"):
            ray.init(address=address, namespace=namespace, **options)
        # Else every driver prints the last log lines of a lost node, and Ray has no option against that. If
        # another version of Ray names the switch differently, the lines are printed.
        if worker := sys.modules.get("ray._private.worker"):
            worker._worker_logs_enabled = False  # pyright: ignore[reportAttributeAccessIssue]
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"engine.ray.address={address}: {reason}. Give the host:port of a head of Ray {ray.__version__}, "
            "or null to start one here. If `ray start` spoke of token authentication, set RAY_AUTH_MODE=token"
        ) from error


def device_resource(config: RayConfig, spec: WorkerSpec) -> str:
    """Return the Ray resource of a worker's devices. Raises UserError if none is configured."""
    if spec.platform not in config.resources:
        raise UserError(
            f"engine.ray.resources has no entry for cluster.platform={spec.platform}. Name the resource of "
            f"its devices with +engine.ray.resources.{spec.platform}=NAME"
        )
    return config.resources[spec.platform]


def largest_fitting_node(config: RayConfig, specs: Sequence[WorkerSpec], nodes: Sequence[Node]) -> Node:
    """Return the node with the most of a worker's resource. Raises UserError for a worker that would not fit
    into the empty cluster and would wait forever."""
    sizes = [(spec.devices // spec.processes, spec.processes) for spec in specs]
    requests = {(device_resource(config, spec), *size) for spec, size in zip(specs, sizes, strict=True)}
    for name, share, count in sorted(requests, reverse=True):
        largest = _amount(_largest_node(name, nodes), name)
        if share > largest:
            raise UserError(
                f"engine=ray: a worker needs {share} {name} on one node, but the largest node has "
                f"{largest:g}. Use smaller meshes, engine.isolation=run or more engine.processes, or name "
                "another resource in engine.ray.resources"
            )
        capacity = sum(int(_amount(node, name) // share) for node in nodes if node["Alive"])
        if count > capacity:
            raise UserError(
                f"engine.processes={count}: a run needs {count} places of {share} {name}, each on one node, "
                f"but all nodes together have {capacity}. Use smaller meshes, or add nodes"
            )
        if count > 1 and any(spec.platform == "tpu" for spec in specs):
            slice_shape.check_slice_exists(slice_shape.SliceShape(name, share, count), nodes)
    return _largest_node(next(iter(requests))[0], nodes)


def _largest_node(resource: str, nodes: Sequence[Node]) -> Node:
    """Return the living node with the most of a resource."""
    living = [node for node in nodes if node["Alive"]]
    return max(living, key=lambda node: _amount(node, resource), default={"Resources": {}})


def _amount(node: Node, resource: str) -> float:
    return node["Resources"].get(resource, 0)


def _check_address(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"engine.ray.address={address}: give host:port of the cluster's head, auto, or null")
    try:
        _try_connect(address, CONNECT_TIMEOUT_SECONDS)
        is_head = _speaks_http2(address)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"engine.ray.address={address}: nobody answers ({error}). Give the host:port that `ray status` "
            "prints, or null to start one here"
        ) from error
    if not is_head:
        raise UserError(
            f"engine.ray.address={address}: the server there is not a Ray head (the dashboard and the client "
            "use other ports). Give the host:port that `ray status` prints, or null to start one here"
        )


def _speaks_http2(address: str) -> bool:
    """Return whether the server answers SETTINGS with SETTINGS, as gRPC servers do (RFC 9113, 3.4). Ray would
    retry any other server for minutes. With TLS this cannot be tested, and True is returned."""
    if os.environ.get("RAY_USE_TLS", "0").lower() not in ("0", "false", ""):
        return True
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT_SECONDS) as connection,
        connection.makefile("rb") as answer,
    ):
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HTTP2_SETTINGS)
        return answer.read(len(HTTP2_SETTINGS))[3:4] == HTTP2_SETTINGS[3:4]


def _try_connect(address: str, timeout_seconds: float) -> None:
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout_seconds).close()


@contextlib.contextmanager
def _keep_signal_handlers() -> Iterator[None]:
    """Restore the SIGTERM handler, which Ray replaces: the driver needs it to let workers save."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # outside the main thread there is nothing to undo
            signal.signal(signal.SIGTERM, before)
