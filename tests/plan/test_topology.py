"""What a plan tells the compilers of devices, and where it finds them."""

import functools

import pytest

from harness.aot.gpu_specs import GPUS
from harness.aot.protocol import Target
from harness.aot.tpu_slices import SLICES
from harness.config.compose import compose
from harness.core.errors import UserError
from harness.estimate.known_chips import CHIPS
from harness.plan.compilers import offline_compilers
from harness.plan.compilers.offline_compilers import compiler_topology

CLUSTERS = ("h100x8", "h100_16k", "v5p_pod", "colossus1", "colossus2")


@functools.cache
def kinds(cluster):
    return compose([f"cluster={cluster}"]).cluster.kinds


@pytest.mark.parametrize(
    ("cluster", "kind", "target", "devices", "topology"),
    [
        ("h100_16k", "h100", Target.cuda, 512, "H100-80G:1x64x8"),
        ("h100_16k", "h100", Target.cuda, 2, "H100-80G:1x1x2"),
        ("colossus2", "gb200", Target.cuda, 288, "GB200:1x4x72"),
        ("colossus2", "gb200", Target.cuda, 4096, "GB200:1x512x8"),
        ("v5p_pod", "v5p", Target.tpu, 512, "v5p:8x8x8"),
    ],
)
def test_whole_hosts_of_the_cluster(cluster, kind, target, devices, topology):
    assert compiler_topology(target, kinds(cluster)[kind], devices) == topology


def test_chips_are_compiled_for_by_their_own_compiler():
    with pytest.raises(UserError, match="target=tpu cannot compile for GB200"):
        compiler_topology(Target.tpu, kinds("colossus2")["gb200"], 8)
    with pytest.raises(UserError, match="target=cuda cannot compile for TPU v5p"):
        compiler_topology(Target.cuda, kinds("v5p_pod")["v5p"], 8)


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_chips_of_every_cluster_are_known_to_a_compiler(cluster):
    for kind in kinds(cluster).values():
        assert kind.chip in GPUS or kind.chip.removeprefix("TPU ") in SLICES


@pytest.mark.parametrize("name", GPUS)
def test_a_described_gpu_is_the_chip_that_is_planned_with(name):
    """Data sheets round memory down."""
    chip, _ = CHIPS[name]
    assert chip.memory <= GPUS[name].memory_bytes <= 1.08 * chip.memory


def test_compilers_are_found_where_they_were_installed_to_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(offline_compilers, "PLAN_VENV", tmp_path)
    assert offline_compilers.plan_python() is None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    assert offline_compilers.plan_python() is None
    (tmp_path / "ready").touch()
    assert offline_compilers.plan_python() == tmp_path / "bin" / "python"
