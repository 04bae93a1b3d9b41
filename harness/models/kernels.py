"""Choice between a library's fused kernel and the reference, for one part of a layer on one platform.

The reference is the form that is written out in this package; it runs everywhere, and it is the only form on
a CPU. The platform is that of the config, so a run is described, planned and compiled for a machine that is
not here with the kernels that it will train with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from harness.config.schema.run import Config, Kernels, Precision
from harness.core.errors import UserError

REFERENCE = "reference"
"""Name of the form that is written out."""


@dataclass(frozen=True)
class KernelTarget:
    """Platform and dtype that kernels are chosen for, and the wish of the config."""

    platform: str = "cpu"
    dtype: Precision = Precision.float32
    kernels: Kernels = Kernels.auto

    @classmethod
    def of(cls, config: Config) -> KernelTarget:
        """Return the target of a run."""
        return cls(config.cluster.platform, config.compute.dtype, config.compute.kernels)


CPU = KernelTarget()
"""Target of what computes on a CPU in float32."""


@dataclass(frozen=True)
class KernelChoice:
    """Kernel of one part of a layer."""

    part: str
    """Part of the layer: attention or experts."""
    name: str
    """Name of the library's kernel, or REFERENCE."""
    lacks: str = ""
    """Reason why `auto` chose the reference on an accelerator."""

    @property
    def fused(self) -> bool:
        """True for a library's kernel."""
        return self.name != REFERENCE


def choose_kernel(target: KernelTarget, part: str, fused: str, lacks: str) -> KernelChoice:
    """Return the kernel `fused`, or the reference where it `lacks` something. Raises UserError for
    `compute.kernels=fused` where it does."""
    if target.kernels is Kernels.reference:
        return KernelChoice(part, REFERENCE)
    if not lacks:
        return KernelChoice(part, fused)
    if target.kernels is Kernels.fused:
        raise UserError(
            f"compute.kernels=fused: {lacks}. Choose compute.kernels=auto, which computes {part} by the"
            " reference there."
        )
    return KernelChoice(part, REFERENCE, lacks if target.platform != "cpu" else "")


def describe_kernels(choices: Iterable[KernelChoice]) -> list[str]:
    """Return a phrase for each kernel of a model, such as `attention: cuDNN in 3 of 4 layers`; `choices` has
    one entry for each part of each layer."""
    counts = Counter(choices)
    phrases = []
    for choice, layers in counts.items():
        total = sum(counts[row] for row in counts if row.part == choice.part)
        where = "" if layers == total else f" in {layers} of {total} layers"
        reason = f" ({choice.lacks})" if choice.lacks else ""
        phrases.append(f"{choice.part}: {choice.name}{where}{reason}")
    return phrases
