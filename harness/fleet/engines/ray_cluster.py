"""Reaching a cluster of Ray, or starting one here; every trouble is one sentence."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from harness.config.errors import UserError
from harness.config.schema import RayConfig
from harness.fleet.engines import Order

PATIENCE = 5.0
"""Seconds in which a head answers at all; Ray itself would try for ten minutes."""


def library() -> Any:
    """The package `ray`. Raises UserError where it is not installed."""
    try:
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
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        with _own_signals():
            ray.init(
                address=address,
                namespace=namespace,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
                **own,
            )
    except Exception as error:
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"engine.ray.address={address}: {said} (give the host:port of a head of Ray {ray.__version__}, "
            "or null to start one here)"
        ) from error


def demands(config: RayConfig, orders: Sequence[Order]) -> dict[str, int]:
    """By resource, the most that one worker takes of it. Raises UserError for a platform without one."""
    most: dict[str, int] = {}
    for order in orders:
        name = resource(config, order)
        most[name] = max(most.get(name, 0), order.devices)
    return most


def resource(config: RayConfig, order: Order) -> str:
    if order.platform not in config.resources:
        raise UserError(
            f"engine.ray.resources: none for cluster.platform={order.platform}; say which resource its devices "
            f"are with +engine.ray.resources.{order.platform}=NAME"
        )
    return config.resources[order.platform]


def check_fits(config: RayConfig, orders: Sequence[Order], nodes: Sequence[dict[str, Any]]) -> None:
    """Raises UserError where no node, were it empty, would hold a worker: it would wait for ever."""
    for name, wanted in demands(config, orders).items():
        most = max((node["Resources"].get(name, 0) for node in nodes if node["Alive"]), default=0)
        if wanted > most:
            raise UserError(
                f"engine=ray: a worker needs {wanted} {name} on one node, and the most that one has is "
                f"{most:g}; give runs smaller meshes, take isolation=run, or name another resource in "
                "engine.ray.resources"
            )


def taken(resource: str, amount: int) -> dict[str, Any]:
    """Options of an actor that takes so much; processors and GPUs have options of their own."""
    own = {"CPU": "num_cpus", "GPU": "num_gpus"}.get(resource)
    return {"num_cpus": 0} | ({own: amount} if own else {"resources": {resource: amount}})


def _reach(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"engine.ray.address={address}: give host:port of the cluster's head, auto, or null")
    try:
        socket.create_connection((host, int(port)), PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"engine.ray.address={address}: nobody answers ({error}); give the host:port that `ray status` "
            "knows, or null to start one here"
        ) from error


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Ray would take SIGTERM for itself, and with it the driver's way to let workers save."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # outside the main thread there is nothing to undo
            signal.signal(signal.SIGTERM, before)
