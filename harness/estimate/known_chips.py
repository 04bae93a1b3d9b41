"""Chips that published runs used: memory, peaks, links. The clusters of conf/cluster have their own numbers;
a test keeps both equal."""

from __future__ import annotations

from harness.core.errors import UserError, did_you_mean
from harness.estimate.clusters import Chip, Links


def _chip(name: str, gigabytes: float, gb_s: float, *peaks: float) -> Chip:
    """Return a chip from GB, GB/s, and TFLOP/s in 16, 8 and 4 bits as far as it has them."""
    peak_flops = {name: peak * 1e12 for name, peak in zip(("bf16", "fp8", "fp4"), peaks, strict=False)}
    return Chip(name, gigabytes * 1e9, gb_s * 1e9, peak_flops)


def _links(domain: int, fast: float, slow: float) -> Links:
    return Links(domain, fast * 1e9, slow * 1e9)


CHIPS: dict[str, tuple[Chip, Links]] = {
    # NVIDIA data sheets: NVLink both directions 300, 600, 900 and 1,800 GB/s; network as DGX and HGX ship.
    "V100": (_chip("V100", 32, 900, 125), _links(8, 150, 12.5)),
    "A100-40G": (_chip("A100-40G", 40, 1555, 312), _links(8, 300, 25)),
    "A100-80G": (_chip("A100-80G", 80, 2039, 312), _links(8, 300, 25)),
    "A800": (_chip("A800", 80, 2039, 312), _links(8, 200, 25)),
    "H100-80G": (_chip("H100-80G", 80, 3350, 989, 1979), _links(8, 450, 50)),
    "H800": (_chip("H800", 80, 3350, 989, 1979), _links(8, 200, 50)),
    "H200-141G": (_chip("H200-141G", 141, 4800, 989, 1979), _links(8, 450, 50)),
    "B200": (_chip("B200", 180, 8000, 2250, 4500, 9000), _links(8, 900, 50)),
    "B300": (_chip("B300", 288, 8000, 2250, 4500, 13500), _links(8, 900, 100)),
    "GB200": (_chip("GB200", 186, 8000, 2450, 4900, 9800), _links(72, 900, 50)),
    "GB300": (_chip("GB300", 288, 8000, 2450, 4900, 14700), _links(72, 900, 100)),
    # docs.cloud.google.com/tpu: links of 2,400, 1,600, 4,800 and 3,584 Gbit/s a chip; half serve one axis.
    "TPU v3": (_chip("TPU v3", 32, 900, 123), _links(1024, 80, 3)),
    "TPU v4": (_chip("TPU v4", 32, 1228, 275), _links(4096, 150, 6.25)),
    "TPU v5e": (_chip("TPU v5e", 16, 819, 197), _links(256, 100, 3.125)),
    "TPU v5p": (_chip("TPU v5p", 95, 2765, 459), _links(6144, 300, 6.25)),
    "TPU v6e": (_chip("TPU v6e", 32, 1640, 918), _links(256, 224, 12.5)),
    # AMD data sheets; Frontier has 25 GB/s for each MI250X, which is two devices.
    "MI250X": (_chip("MI250X", 128, 3276, 383), _links(4, 100, 25)),
    "MI300X": (_chip("MI300X", 192, 5300, 1307, 2615), _links(8, 448, 50)),
}
"""Chips and their links, by name."""


def find_chip(name: str) -> tuple[Chip, Links]:
    """Return a chip by its name or the beginning of it. Raises UserError."""
    prefix = _normalise(name)
    keys = {key: _normalise(key) for key in CHIPS}
    exact = [key for key in keys if keys[key] == prefix]
    matches = [key for key in keys if keys[key].startswith(prefix) or prefix.startswith(keys[key])]
    if not exact and not matches:
        raise UserError(f"chip={name} is not known: {did_you_mean(name, CHIPS)}")
    return CHIPS[(exact or sorted(matches, key=len))[-1]]


def _normalise(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
