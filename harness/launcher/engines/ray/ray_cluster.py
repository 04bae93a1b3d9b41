"""Reaching a cluster of Ray, or starting one here; every trouble is one sentence."""

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
from harness.launcher.engines.engine_api import Order
from harness.launcher.engines.ray import slice_shape

PATIENCE = 5.0
"""Seconds in which a head answers at all; Ray itself would try for ten minutes."""
TRIES = "5"
"""Of Ray, a second each, to be let in by a head that answers; it would make 20, and print each."""

LOST = 40.0
"""Seconds without an answer after which a head is lost. Ray itself ends the process after a minute."""
AGAIN = 5.0
"""Seconds between two looks at the head."""


SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""A frame of HTTP/2: its length, its kind, flags and stream."""


@dataclass
class Head:
    """Of a cluster, by `host:port`; none of one that was started here, which ends with this process."""

    address: str = ""
    looked: float = float("-inf")
    answered: float = float("-inf")
    trouble: OSError | None = None

    def look(self, now: float) -> None:
        """Raises UserError where nobody has answered for long. `now`: seconds, always by one clock."""
        if not self.answers(now, AGAIN) and now - self.answered >= LOST:
            raise UserError(
                f"engine.ray.address={self.address}: the head was lost ({self.trouble}), and its cluster "
                "ends with it; the same command goes on from the checkpoints in another one"
            ) from self.trouble

    def answers(self, now: float, age: float = 0.0) -> bool:
        """Whether somebody did, not longer ago than so many seconds."""
        if self.address and now - self.looked > age:
            self.looked, self.trouble = now, None
            try:
                _knock(self.address, 1.0)
                self.answered = now
            except OSError as error:
                self.trouble = error
        return self.trouble is None


def library(config: RayConfig) -> Any:
    """The package `ray`. Raises UserError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if config.address is not None:  # Ray reads it when it is imported
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", TRIES)
    try:
        importlib.import_module("ray.util.scheduling_strategies")
        return importlib.import_module("ray")
    except ImportError as error:
        raise UserError(
            f"engine=ray: the package ray cannot be imported ({error}); `pip install 'ab-harness[ray]'`, or "
            "train here with engine=local"
        ) from error


def connect(ray: Any, config: RayConfig, namespace: str) -> None:
    """Raises UserError where nobody answers, or a Ray that this one does not understand."""
    address = config.address or "local"
    if config.address and config.address != "auto":
        _reach(config.address)
    own = {"include_dashboard": False} if config.address is None else {}
    logging.getLogger("ray").setLevel(logging.ERROR)  # `configure_logging` would print more, not less
    try:
        with _own_signals():
            ray.init(
                address=address,
                namespace=namespace,
                log_to_driver=False,
                configure_logging=False,
                **own,
            )
        _quiet()
    except Exception as error:
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"engine.ray.address={address}: {said} (give the host:port of a head of Ray {ray.__version__}, "
            "or null to start one here; where `ray start` spoke of token authentication, set "
            "RAY_AUTH_MODE=token)"
        ) from error


def resource(config: RayConfig, order: Order) -> str:
    if order.platform not in config.resources:
        raise UserError(
            f"engine.ray.resources: none for cluster.platform={order.platform}; say which resource its "
            f"devices are with +engine.ray.resources.{order.platform}=NAME"
        )
    return config.resources[order.platform]


def fitting(
    config: RayConfig, orders: Sequence[Order], nodes: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any]:
    """A node that would hold most of a worker. Raises UserError where a worker would wait for ever, since its
    processes have no room, were the cluster empty."""
    asked = {(resource(config, each), each.devices // each.processes, each.processes) for each in orders}
    for name, share, count in sorted(asked, reverse=True):
        most = _has(_most(name, nodes), name)
        if share > most:
            raise UserError(
                f"engine=ray: a worker needs {share} {name} on one node, and the most that one has is "
                f"{most:g}; give runs smaller meshes, take engine.isolation=run or more "
                "engine.processes, or name another resource in engine.ray.resources"
            )
        places = sum(int(_has(node, name) // share) for node in nodes if node["Alive"])
        if count > places:
            raise UserError(
                f"engine.processes={count}: a run needs {count} places of {share} {name}, each on one node, "
                f"and all nodes together have {places}; give runs smaller meshes, or add nodes"
            )
        if count > 1 and any(each.platform == "tpu" for each in orders):
            slice_shape.check(slice_shape.Shape(name, share, count), nodes)
    return _most(next(iter(asked))[0], nodes)


def a_little(node: Mapping[str, Any]) -> dict[str, float]:
    """Of a resource that this node alone has, so that it is this one and takes nobody's place."""
    return {f"node:{node['NodeManagerAddress']}": 0.001}


def taken(resources: Mapping[str, float]) -> dict[str, Any]:
    """Options of an actor that takes so much; processors and GPUs have options of their own."""
    others = {name: amount for name, amount in resources.items() if name not in ("CPU", "GPU")}
    counts = {"num_cpus": resources.get("CPU", 0), "num_gpus": resources.get("GPU", 0)}
    return counts | {"resources": others}


def _most(resource: str, nodes: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The living node that has most of it."""
    living = [node for node in nodes if node["Alive"]]
    return max(living, key=lambda node: _has(node, resource), default={"Resources": {}})


def _has(node: Mapping[str, Any], resource: str) -> float:
    return node["Resources"].get(resource, 0)


def _reach(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"engine.ray.address={address}: give host:port of the cluster's head, auto, or null")
    try:
        _knock(address, PATIENCE)
        speaks = _speaks_http2(address)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"engine.ray.address={address}: nobody answers ({error}); give the host:port that `ray status` "
            "knows, or null to start one here"
        ) from error
    if not speaks:
        raise UserError(
            f"engine.ray.address={address}: what answers there is no head of Ray (its dashboard and its "
            "client have ports of their own); give the host:port that `ray status` knows, or null to start "
            "one here"
        )


def _speaks_http2(address: str) -> bool:
    """Whether settings are answered by settings, as by every server of gRPC (RFC 9113, 3.4): Ray would ask
    anything else for minutes. Where Ray is told to use TLS, nothing is known."""
    if os.environ.get("RAY_USE_TLS", "0").lower() not in ("0", "false", ""):
        return True
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), PATIENCE) as there, there.makefile("rb") as answer:
        there.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SETTINGS)
        return answer.read(len(SETTINGS))[3:4] == SETTINGS[3:4]


def _knock(address: str, patience: float) -> None:
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), patience).close()


def _quiet() -> None:
    """Ray prints the last lines of a lost node's log into the output of every driver, and has no option
    against it. Where its name for that is another, all that is lost is the silence."""
    if worker := sys.modules.get("ray._private.worker"):
        worker._worker_logs_enabled = False  # pyright: ignore[reportAttributeAccessIssue]


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Ray would take SIGTERM for itself, and with it the driver's way to let workers save."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # outside the main thread there is nothing to undo
            signal.signal(signal.SIGTERM, before)
