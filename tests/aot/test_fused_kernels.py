"""Steps with fused kernels, compiled for GPUs and TPUs that are not here. `make test-extras`."""

import pytest

from harness.aot.protocol import Target
from tests.aot.test_offline_devices import EXPERTS, SMALL, asked, with_compilers

T, LAYERS, HEADS, DEVICES = 4096, 2, 2, 4
LONG = (
    *SMALL,
    f"data.sequence_length={T}",
    f"model.layers={LAYERS}",
    f"model.heads={HEADS}",
    "model.head_width=128",
    f"scale.batch={DEVICES}",
    "compute.dtype=bfloat16",
    "compute.scan_layers=true",
)
TARGETS = {Target.tpu: "v5p:2x2x1", Target.cuda: "H100-80G:1x1x4"}
OPTIONS = {
    Target.tpu: ("data.mask_documents=true", "+model.attention.options={softcap: 50.0, sinks: true}"),
    Target.cuda: ("data.mask_documents=true", "+model.attention.options={sinks: true}"),
}
SHARDED = ("mesh.fsdp=2", "mesh.tensor=2", "compute.remat=dots")
KERNELS = {Target.tpu: "kernel tpu_custom_call not read", Target.cuda: "kernel __cudnn$fmhaSoftmax not read"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fused")


@with_compilers
@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_a_step_with_the_fused_kernel_takes_no_memory_for_scores(folder, target, capsys):
    """A sequence of each device in two layers of two heads, without remat. A saved score takes a value
    of 16 bits or more; four blocks of queries compute 5/8 of all keys."""
    step = (*LONG, f"mesh.data={DEVICES}")
    fused = asked(folder, target, TARGETS[target], step)
    written = asked(folder, target, TARGETS[target], (*step, "compute.kernels=reference"))
    scores = LAYERS * HEADS * T * (5 / 8 * T)
    with capsys.disabled():
        peaks = f"peak {fused['peak_bytes']:,} bytes with the fused kernel, {written['peak_bytes']:,} without"
        print(f"\n{target.value}, T {T:,}, one device: {peaks}; the float32 scores are {4 * scores:,.0f}")
    assert written["peak_bytes"] - fused["peak_bytes"] > 2 * scores
    assert fused["temporary_bytes"] < 4 * scores
    assert KERNELS[target] in fused["uncounted"]
    assert not any("kernel" in line for line in written["uncounted"])


@with_compilers
@pytest.mark.slow
def test_experts_of_a_tpu_compile_with_their_kernel(folder):
    step = (*LONG, *EXPERTS, "mesh.fsdp=2", "mesh.expert=2")
    fused = asked(folder, Target.tpu, TARGETS[Target.tpu], step)
    assert "error" not in fused
    assert KERNELS[Target.tpu] in fused["uncounted"]


@with_compilers
@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_options_meshes_scans_and_remat_compile(folder, target):
    seen = asked(folder, target, TARGETS[target], (*LONG, *OPTIONS[target], *SHARDED))
    assert "error" not in seen
    assert not seen["refused"]
    assert any("not read" in line for line in seen["uncounted"])
