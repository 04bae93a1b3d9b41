"""A run as the launcher hands it to a worker. This file imports no JAX, whose options a worker sets first."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from harness.config.schema.run import Config
from harness.records.paths import RunDir
from harness.records.run.provenance import Provenance


@dataclass(frozen=True)
class PreparedRun:
    """A run directory that the launcher has prepared."""

    run: RunDir
    config: Config
    provenance: Provenance
    started_at: float = field(default_factory=time.time)
    """UTC seconds when the process took the run. The timeline measures startup time from here."""
    saves_in_background: bool = True
    """True if the devices have room for a copy of the state, to save it from while training goes on."""
