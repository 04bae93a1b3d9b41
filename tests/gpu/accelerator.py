"""The accelerator of this machine, and the overrides that describe it to a sweep and to a plan."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

from harness.core.errors import UserError
from harness.estimate.clusters import GIB, Chip
from harness.estimate.known_chips import find_chip
from harness.launcher.engines.local.host_devices import find_devices

PLATFORMS = ("cuda", "tpu")
PRINT_DEVICE = "import jax; device = jax.devices()[0]; print(device.platform, device.device_kind, sep='|')"


class NoAccelerator(Exception):
    """This machine cannot run the proof; the message says why."""


@dataclass(frozen=True)
class Accelerator:
    """One chip, and its name as JAX prints it."""

    platform: str
    name: str
    chip: Chip

    @property
    def overrides(self) -> list[str]:
        """Cluster of this one chip: the numbers of its data sheet, and failures and power of an H100's."""
        chip, kind = self.chip, "cluster.kinds.h100"
        return [
            "cluster=h100x1",
            f"cluster.platform={self.platform}",
            f"{kind}.chip={chip.name}",
            f"{kind}.memory_gib={chip.memory / GIB:.1f}",
            f"{kind}.memory_gb_s={chip.memory_bandwidth / 1e9:.0f}",
            f"{kind}.peak_tflops.bf16={chip.peaks['bf16'] / 1e12:.0f}",
        ]


def find_accelerator() -> Accelerator:
    """Return the first accelerator of this machine. Raises NoAccelerator."""
    platform = next(filter(_has_devices, PLATFORMS), None)
    if platform is None:
        raise NoAccelerator(f"this machine shows no device of {' or '.join(PLATFORMS)}")
    name = _jax_name(platform)
    try:
        chip, _ = find_chip(name.removeprefix("NVIDIA ").split(" ")[0] if platform == "cuda" else name)
    except UserError as error:
        raise NoAccelerator(f"nothing is known to compare {name} with: {error}") from error
    return Accelerator(platform, name, chip)


def _has_devices(platform: str) -> bool:
    try:
        return bool(find_devices(platform))
    except UserError:
        return False


def _jax_name(platform: str) -> str:
    """Return the chip's name by JAX, asked in a process of its own: a process that has seen it keeps it."""
    environment = {key: value for key, value in os.environ.items() if key != "JAX_PLATFORMS"}
    done = subprocess.run(
        [sys.executable, "-c", PRINT_DEVICE], env=environment, capture_output=True, text=True, check=False
    )
    found, _, name = done.stdout.strip().rpartition("\n")[2].partition("|")
    if found in ("", "cpu"):
        install = f"pip install --editable '.[{platform}]' in .venv, and repeat"
        raise NoAccelerator(f"JAX does not see the {platform} device: {install}")
    return name
