"""Described clusters: chips of one or more kinds, their links, failures and power."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from harness.config import compose
from harness.config.schema.cluster import ClusterConfig, KindConfig
from harness.core.errors import UserError, did_you_mean

GIB = 2.0**30
"""Bytes of a GiB."""
HOURS_PER_YEAR = 8766.0
"""Hours of a mean year."""


@dataclass(frozen=True)
class Chip:
    """Accelerator chip: memory, memory bandwidth and peak speeds."""

    name: str
    memory: float
    """Bytes of device memory."""
    memory_bandwidth: float
    """Bytes per second."""
    peaks: dict[str, float]
    """FLOP/s without sparsity, by dtype."""

    def peak(self, precision: str) -> float:
        """Return FLOP/s in this dtype. Raises UserError if the chip has no such peak."""
        if precision not in self.peaks:
            hint = did_you_mean(precision, self.peaks)
            raise UserError(f"peak_tflops.{precision} of {self.name} is not given: {hint}")
        return self.peaks[precision]


@dataclass(frozen=True)
class Links:
    """Links between chips, in bytes per second of one chip in one direction."""

    scale_up_domain: int
    """Number of chips that share the fast links."""
    scale_up: float
    scale_out: float


@dataclass(frozen=True)
class Partition:
    """Chips of one kind."""

    name: str
    chip: Chip
    links: Links
    chips: int
    watts: float
    """Watts of one chip with its share of the host."""
    mtbf_device_years: float
    """Device-years between unplanned interruptions."""

    def mtbf_hours(self, chips: int) -> float:
        """Return the mean hours between interruptions of a run on `chips` chips."""
        return self.mtbf_device_years * HOURS_PER_YEAR / chips


@dataclass(frozen=True)
class Cluster:
    """A machine of one or more kinds of chips."""

    name: str
    partitions: tuple[Partition, ...]
    power_overhead: float
    """Factor from the watts of chips to those at the meter."""
    site_watts: float | None
    restart_hours: float
    checkpoint_bandwidth: float
    """Bytes per second from one chip to shared storage."""

    @property
    def chips(self) -> int:
        """Return the number of chips of all kinds."""
        return sum(part.chips for part in self.partitions)

    def partition(self, kind: str | None = None) -> Partition:
        """Return the chips of one kind, or of the only kind. Raises UserError."""
        by_name = {part.name: part for part in self.partitions}
        if kind is None and len(by_name) == 1:
            return self.partitions[0]
        if kind not in by_name:
            hint = did_you_mean(kind or "", by_name)
            raise UserError(
                f"cluster={self.name} has {len(by_name)} kinds of chips, but not '{kind}': {hint}"
            )
        return by_name[kind]

    def only(self, kind: str) -> Cluster:
        """Return the same machine without its other kinds."""
        return dataclasses.replace(self, partitions=(self.partition(kind),))


def cluster_from_config(config: ClusterConfig) -> Cluster:
    """Return the cluster of a config. Raises UserError with the first missing number."""
    if not config.kinds:
        raise UserError(
            f"cluster={config.name} does not describe its chips (cluster.kinds is empty), so it cannot be"
            f" planned for it: choose one of {', '.join(described_clusters())}, or write one as"
            " conf/cluster/h100x8.yaml."
        )
    return Cluster(
        name=config.name,
        partitions=tuple(_partition(config.name, name, kind) for name, kind in config.kinds.items()),
        power_overhead=_required_number(config.name, "power_overhead", config.power_overhead),
        site_watts=None if config.site_megawatts is None else config.site_megawatts * 1e6,
        restart_hours=_required_number(config.name, "restart_minutes", config.restart_minutes) / 60,
        checkpoint_bandwidth=_required_number(config.name, "checkpoint_gb_s", config.checkpoint_gb_s) * 1e9,
    )


def sole_partition(config: ClusterConfig) -> Partition | None:
    """Return the chips of a cluster with one kind; None if it describes none, or several. Raises UserError
    with the first missing number."""
    if len(config.kinds) != 1:
        return None
    [(name, kind)] = config.kinds.items()
    return _partition(config.name, name, kind)


def _partition(cluster: str, name: str, kind: KindConfig) -> Partition:
    def given(key: str) -> float:
        return _required_number(cluster, f"kinds.{name}.{key}", getattr(kind, key))

    if not kind.peak_tflops:
        _required_number(cluster, f"kinds.{name}.peak_tflops", None)
    peaks = {
        precision: _required_number(cluster, f"kinds.{name}.peak_tflops.{precision}", value) * 1e12
        for precision, value in kind.peak_tflops.items()
    }
    chip = Chip(kind.chip, given("memory_gib") * GIB, given("memory_gb_s") * 1e9, peaks)
    domain = int(given("scale_up_domain"))
    links = Links(domain, given("scale_up_gb_s") * 1e9, given("scale_out_gb_s") * 1e9)
    return Partition(name, chip, links, int(given("chips")), given("watts"), given("mtbf_device_years"))


def _required_number(cluster: str, key: str, value: float | None) -> float:
    if value is None or not value > 0:
        raise UserError(
            f"cluster={cluster}: cluster.{key}={'null' if value is None else value} is needed for a plan."
            " Give a number above 0, with its source in a comment."
        )
    return value


def load_cluster(name: str | Path) -> Cluster:
    """Return a cluster of conf/cluster by name, or of a YAML file by path. Raises UserError."""
    path = Path(name) if str(name).endswith(".yaml") else compose.CONF_FOLDER / "cluster" / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"cluster={name} is not known: {did_you_mean(str(name), described_clusters())}")
    try:
        content = OmegaConf.merge(OmegaConf.structured(ClusterConfig), OmegaConf.load(path))
        config = OmegaConf.to_object(content)
    except (OmegaConfBaseException, YAMLError) as error:
        raise UserError(f"{path}: {str(error).splitlines()[0]}") from error
    assert isinstance(config, ClusterConfig)
    return cluster_from_config(config)


def described_clusters() -> list[str]:
    """Return the names of the clusters in conf/cluster that describe their chips."""
    paths = (compose.CONF_FOLDER / "cluster").glob("*.yaml")
    return sorted(path.stem for path in paths if "\nkinds:" in path.read_text())


def meter_watts(cluster: Cluster, part: Partition, chips: int) -> float:
    """Return the watts of some chips of one kind under load, with hosts, switches and cooling."""
    return part.watts * chips * cluster.power_overhead


def machine_watts(cluster: Cluster) -> float:
    """Return the watts of every chip of every kind under load, with hosts, switches and cooling."""
    return sum(part.watts * part.chips for part in cluster.partitions) * cluster.power_overhead


def gigawatt_hours(watts: float, days: float) -> float:
    """Return the energy of `days`, training or not: a chip that waits for a restart counts in full."""
    return watts * days * 24 / 1e9
