"""Typed config nodes of the trackers to which a sweep's records are mirrored."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class WandbMode(Enum):
    """Destination of W&B runs: the sweep's folder, which needs no account, or the server."""

    offline = "offline"
    online = "online"


@dataclass
class TensorboardConfig:
    """TensorBoard: event files in the sweep's folder."""


@dataclass
class WandbConfig:
    """Weights & Biases."""

    mode: WandbMode = WandbMode.offline
    """Destination: offline (the sweep's folder) or online."""
    project: str | None = None
    """Project; null: the name of the experiment."""
    entity: str | None = None
    """User or team; null: the default of the account."""


@dataclass
class TrackioConfig:
    """trackio: its local database, or where TRACKIO_SPACE_ID or TRACKIO_SERVER_URL say."""

    project: str | None = None
    """Project; null: the name of the experiment."""


@dataclass
class MlflowConfig:
    """MLflow."""

    uri: str | None = None
    """Tracking server or store; null: MLFLOW_TRACKING_URI, else a database in the sweep's folder."""
    experiment: str | None = None
    """Experiment of MLflow; null: the name of the experiment."""


@dataclass
class TrackerConfig:
    """Trackers to which one process each mirrors the records of a sweep; null: not to this one. No worker
    reads this node."""

    tensorboard: TensorboardConfig | None = None
    """TensorBoard."""
    wandb: WandbConfig | None = None
    """Weights & Biases."""
    trackio: TrackioConfig | None = None
    """trackio."""
    mlflow: MlflowConfig | None = None
    """MLflow."""
