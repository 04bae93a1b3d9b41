"""Accelerators of this host, and the environment in which a worker sees only its own.

A process that uses JAX takes every accelerator that it can see, from the first on. So each local worker gets
a range of them, named in the variable that the driver of the platform reads. Nothing here starts a driver.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import UserError

ROOT = Path("/")
"""Root of the file system in which the device files are counted."""
VARIABLES = {"cuda": "CUDA_VISIBLE_DEVICES", "rocm": "HIP_VISIBLE_DEVICES", "tpu": "TPU_VISIBLE_CHIPS"}
"""Variable that names the devices that a process may use, by platform."""
_DEVICE_FILES = {
    "cuda": ("dev", r"nvidia\d+"),
    "rocm": ("dev/dri", r"renderD\d+"),
    "tpu": ("dev", r"accel\d+"),
}
_TPU_VFIO = ("dev/vfio", r"\d+")
"""Device files of newer TPUs."""
TPU_BOUNDS = {1: "1,1,1", 2: "1,2,1", 4: "2,2,1", 8: "2,4,1"}
"""Rectangle that so many chips of a host form, aligned to their number; libtpu takes no others."""


@dataclass(frozen=True)
class HostDevices:
    """Accelerators of one platform that this command may use, in the order in which JAX numbers them."""

    platform: str
    names: tuple[str, ...]
    """Values for the variable: numbers, or the names that the shell gave."""
    origin: str
    """Evidence for their number, such as `CUDA_VISIBLE_DEVICES=4,5`."""

    def __len__(self) -> int:
        return len(self.names)

    def check_width(self, devices: int, worker: str) -> None:
        """Raise UserError if no range of `devices` devices exists here. `worker`: its name."""
        if devices > len(self):
            raise UserError(
                f"{worker} needs {devices} {self.platform} devices side by side, but this host shows "
                f"{len(self)} ({self.origin}). Use a smaller mesh, or engine.isolation=run for one variant "
                "at a time."
            )
        if self.platform == "tpu" and devices not in TPU_BOUNDS and devices != len(self):
            raise UserError(
                f"{worker} needs {devices} chips, but processes share a TPU host in parts of 1, 2, 4 or 8. "
                "Use such a mesh, or engine.isolation=all for one process with all chips."
            )

    def range_for(self, devices: int, busy: Collection[str]) -> tuple[str, ...] | None:
        """Return the names of `devices` free devices, adjacent if possible; None if there are too few."""
        if devices == len(self):
            return None if busy else self.names
        step = devices if self.platform == "tpu" else 1  # a rectangle of chips is aligned
        for first in range(0, len(self) - devices + 1, step):
            names = self.names[first : first + devices]
            if not {*names} & {*busy}:
                return names
        free = tuple(name for name in self.names if name not in busy)
        return free[:devices] if len(free) >= devices and self.platform != "tpu" else None

    def environment(self, names: tuple[str, ...]) -> dict[str, str]:
        """Return the variables of a process that shall see these devices alone."""
        if self.platform == "tpu" and names == self.names:
            return {}  # libtpu knows the shape of a whole host
        variables = {VARIABLES[self.platform]: ",".join(names)}
        if self.platform == "tpu":
            bounds = {"TPU_CHIPS_PER_PROCESS_BOUNDS": TPU_BOUNDS[len(names)], "TPU_PROCESS_BOUNDS": "1,1,1"}
            variables |= bounds | {"ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
        return variables


def find_devices(platform: str, environ: Mapping[str, str] = os.environ) -> HostDevices:
    """Return the accelerators that the shell lets this command use, else all of this host. Raises UserError
    for an unknown platform, or if there are none."""
    if platform not in VARIABLES:
        platforms = ", ".join(VARIABLES)
        raise UserError(
            f"cluster.platform={platform}: local workers can divide the devices of {platforms}, but not "
            "of this platform. Give one worker all of them with engine.isolation=all."
        )
    variable = VARIABLES[platform]
    names = _named(platform, environ)
    if names is None:
        names, origin = tuple(map(str, range(_count_files(platform)))), f"{variable} is not set"
    else:
        origin = f"{variable}={environ.get(variable, '')}"
    if not names:
        raise UserError(
            f"cluster.platform={platform}: this host shows no {platform} device ({origin}). Name its devices "
            f"with {variable}=0,1,..., or train elsewhere."
        )
    return HostDevices(platform, names, origin)


def _named(platform: str, environ: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the devices that the shell names; None if it names none, which allows all. As the drivers do,
    the list ends before its first negative number."""
    text = environ.get(VARIABLES[platform])
    if text is None and platform == "rocm" and "ROCR_VISIBLE_DEVICES" in environ:
        return tuple(map(str, range(len(_entries(environ["ROCR_VISIBLE_DEVICES"])))))  # numbered anew
    return None if text is None else _entries(text)


def _entries(text: str) -> tuple[str, ...]:
    names: list[str] = []
    for name in (entry.strip() for entry in text.split(",")):
        if not name or name.startswith("-") or name == "NoDevFiles":
            break
        names.append(name)
    return tuple(dict.fromkeys(names))


def _count_files(platform: str) -> int:
    places = [_DEVICE_FILES[platform], *([_TPU_VFIO] if platform == "tpu" else [])]
    counts = [
        sum(bool(re.fullmatch(pattern, file.name)) for file in (ROOT / folder).glob("*"))
        for folder, pattern in places
    ]
    return max(counts)
