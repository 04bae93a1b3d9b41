"""Trackers by name: their packages, what they need before a sweep, and their backends."""

from __future__ import annotations

import importlib.util
import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit

from harness.config.schema.tracker import TrackerConfig, WandbConfig, WandbMode
from harness.core.errors import UserError
from harness.trackers.tracker_api import TrackerBackend

TRACKERS = ("tensorboard", "wandb", "trackio", "mlflow")
"""Names of the trackers, which are also those of their packages and of the extras that install them."""
WANDB_SERVER = "https://api.wandb.ai"


def chosen_trackers(config: TrackerConfig) -> list[str]:
    """Return the names of the trackers that a config chooses."""
    return [name for name in TRACKERS if getattr(config, name) is not None]


def check_trackers(config: TrackerConfig) -> None:
    """Raise UserError for a tracker whose package is missing, or that would have to log in first."""
    for name in chosen_trackers(config):
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"tracker={name}: {name} is not installed. Install it with `pip install "
                f"'ab-harness[{name}]'`, or leave the tracker out; `harness mirror SWEEP --to {name}` sends "
                "the sweep later."
            )
    if config.wandb and config.wandb.mode is WandbMode.online:
        _check_wandb_login()


def _check_wandb_login() -> None:
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or WANDB_SERVER).hostname or ""
    try:
        stored = netrc.netrc(os.environ.get("NETRC")).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        stored = None
    if not (os.environ.get("WANDB_API_KEY") or stored):
        raise UserError(
            f"tracker.wandb.mode=online: nobody is logged in at {host}. Call `wandb login`, or set "
            "WANDB_API_KEY, or leave the mode out: an offline run is sent later with `wandb sync`."
        )


def make_backend(name: str, folder: Path, experiment: str, config: TrackerConfig) -> TrackerBackend:
    """Return the backend of a tracker, importing its package. `folder`: place of what is kept here."""
    if name == "tensorboard":
        from harness.trackers.backends.event_files import TensorboardBackend

        return TensorboardBackend(folder / name)
    if name == "wandb":
        from harness.trackers.backends.wandb_service import WandbBackend

        return WandbBackend(folder, experiment, config.wandb or WandbConfig())
    if name == "trackio":
        from harness.trackers.backends.trackio_database import TrackioBackend

        assert config.trackio is not None
        return TrackioBackend(folder / name, experiment, config.trackio)
    from harness.trackers.backends.mlflow_store import MlflowBackend

    assert config.mlflow is not None
    return MlflowBackend(folder / name, experiment, config.mlflow)


def where_to_look(name: str, folder: Path, config: TrackerConfig) -> str:
    """Return the phrase for where a tracker's users find the sweep."""
    if name == "tensorboard":
        return f"`tensorboard --logdir {folder / name}`"
    if name == "wandb":
        is_online = config.wandb is not None and config.wandb.mode is WandbMode.online
        return "the project on the server" if is_online else f"`wandb sync {folder}/wandb/offline-run-*`"
    if name == "trackio":
        place = os.environ.get("TRACKIO_DIR") or f"{folder / name}"
        return f"`TRACKIO_DIR={place} trackio show`"
    uri = (config.mlflow and config.mlflow.uri) or os.environ.get("MLFLOW_TRACKING_URI")
    return uri or f"`mlflow ui --backend-store-uri sqlite:///{folder / name}/mlflow.db`"
