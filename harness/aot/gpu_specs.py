"""Device properties of absent GPUs that XLA needs, as the text of its GpuTargetConfigProto.

Numbers are the device properties that CUDA reports, from XLA's own descriptions of these GPUs
(openxla/xla, xla/backends/gpu/target_config/specs).
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.errors import UserError, did_you_mean

CUDA = "12.8.0"
"""Version of CUDA that steps are compiled for. Without one, XLA takes no library product in 8 bits."""
CUDA_PARTS = ("driver", "runtime", "compile_time_toolkit")


@dataclass(frozen=True)
class GpuSpec:
    """Device properties of one GPU model."""

    name: str
    capability: tuple[int, int]
    """CUDA compute capability."""
    cores: int
    """Number of streaming multiprocessors."""
    lanes: int
    """Single-precision units of each multiprocessor."""
    clock_ghz: float
    memory_bytes: int
    memory_bytes_s: int
    cache_bytes: int
    """Level-2 cache."""
    shared_bytes: int
    """Shared memory of one multiprocessor; a block may use 1 KiB less."""

    @property
    def target_config(self) -> str:
        """GpuTargetConfigProto text. Limits hold for every GPU since compute capability 8.0 (CUDA guide)."""
        major, minor = self.capability
        return f"""
            gpu_device_info {{
              threads_per_block_limit: 1024  threads_per_warp: 32  threads_per_core_limit: 2048
              thread_dim_limit_x: 1024  thread_dim_limit_y: 1024  thread_dim_limit_z: 64
              block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
              registers_per_core_limit: 65536  registers_per_block_limit: 65536
              shared_memory_per_block: 49152
              shared_memory_per_block_optin: {self.shared_bytes - 1024}
              shared_memory_per_core: {self.shared_bytes}
              core_count: {self.cores}  fpus_per_core: {self.lanes}  clock_rate_ghz: {self.clock_ghz}
              memory_bandwidth: {self.memory_bytes_s}  device_memory_size: {self.memory_bytes}
              l2_cache_size: {self.cache_bytes}
              cuda_compute_capability {{ major: {major} minor: {minor} }}
              {" ".join(f'{name}_version: "{CUDA}"' for name in CUDA_PARTS)}
            }}
            platform_name: "CUDA"
            dnn_version_info {{ major: 9 minor: 10 }}
            device_description_str: "{self.name}"
        """


def _hopper(name: str, memory_bytes: int, memory_bytes_s: int) -> GpuSpec:
    return GpuSpec(name, (9, 0), 132, 128, 1.98, memory_bytes, memory_bytes_s, 52_428_800, 233_472)


def _blackwell(name: str, minor: int, clock_ghz: float, memory_bytes: int) -> GpuSpec:
    rate, cache = 7_928_064_000_000, 135_528_448
    return GpuSpec(name, (10, minor), 152, 128, clock_ghz, memory_bytes, rate, cache, 233_472)


_A100 = GpuSpec(
    "NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, 1.41, 85_100_068_864, 2_039_040_000_000, 41_943_040, 167_936
)
_H100 = _hopper("NVIDIA H100 80GB HBM3", 84_942_979_072, 3_352_320_000_000)

GPUS = {
    "A100-80G": _A100,
    "H100-80G": _H100,
    # An H100 with fewer NVLinks, which the compiler does not read.
    "H800": _H100,
    "H200-141G": _hopper("NVIDIA H200 141GB HBM3e", 151_397_597_184, 4_800_000_000_000),
    "GB200": _blackwell("NVIDIA GB200", 0, 2.062, 197_897_748_480),
    "GB300": _blackwell("NVIDIA GB300", 3, 2.07, 297_021_079_552),
}
"""GPU specs by the names that clusters and published runs use (harness.estimate.known_chips)."""


def gpu_spec(name: str) -> GpuSpec:
    """Return the spec of a GPU. Raises UserError if its properties are not listed."""
    if name not in GPUS:
        raise UserError(f"chip={name} has no listed device properties; {did_you_mean(name, GPUS)}")
    return GPUS[name]
