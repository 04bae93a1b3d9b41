"""Steps compiled for GPUs and TPUs that are not here. Slow ones: `make test-extras`."""

import functools
import json
import os
import subprocess
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import jax
import pytest
from packaging.requirements import Requirement

from harness.aot import backends
from harness.aot.__main__ import CPU_ENV, OFFLINE_TPU_ENV
from harness.aot.protocol import CompileStats, Target
from harness.aot.tpu_slices import SLICES, num_chips
from harness.aot.train_step import step_factory
from harness.config.compose import compose
from harness.core.errors import UserError
from harness.plan.compilers.offline_compilers import plan_python
from harness.records.run.config_file import write_config

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements-plan.lock"

SMALL = (
    "roster=frontier",
    "roster.vocabulary=1024",
    "scale=xs",
    "scale.batch=16",
    "data.sequence_length=128",
    "model.width=512",
    "model.layers=3",
    "model.heads=4",
    "model.ffn=512",
)
WRITTEN_OUT = "compute.kernels=reference"
"""Compilers do not tell the products of a fused kernel."""
DECODER = (*SMALL, WRITTEN_OUT, "mesh.data=2", "mesh.fsdp=2")
EXPERTS = ("model.feedforward.name=moe", "+model.feedforward.options={experts: 8, top_k: 2, shared: 1}")
MOE = (*SMALL, *EXPERTS, WRITTEN_OUT, "mesh.fsdp=2", "mesh.expert=4")
PROGRAMS = {"decoder": (DECODER, "v5p:2x2x1", "H100-80G:1x1x4"), "moe": (MOE, "v5p:2x2x2", "H100-80G:1x1x8")}

with_compilers = pytest.mark.skipif(
    plan_python() is None, reason="the compilers for other machines are not here: make plan-extras"
)
without_compilers = pytest.mark.skipif(
    find_spec("libtpu") is not None or find_spec("jax_plugins") is not None,
    reason="this environment has a compiler of its own for other machines",
)


def outside(arguments, environment):
    """What a process of the optional environment prints."""
    whole = {**os.environ, **environment, "PYTHONPATH": str(ROOT)}
    command = ["nice", "-n", "10", str(plan_python()), *arguments]
    done = subprocess.run(command, env=whole, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@functools.cache
def asked(tmp, target, topology, overrides):
    """Of one step, in a process of its own; fields of a CompileStats, or its error."""
    folder = tmp / f"{target.value}{len(list(tmp.iterdir()))}"
    folder.mkdir()
    write_config(folder / "config.yaml", compose(overrides))
    request = {"target": target.value, "configs": [str(folder / "config.yaml")], "topology": topology}
    (folder / "request.json").write_text(json.dumps(request))
    return json.loads(outside(["-m", "harness.aot", str(folder / "request.json")], {}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


def compiled(folder, program):
    overrides, tpu, gpu = PROGRAMS[program]
    return asked(folder, Target.tpu, tpu, overrides), asked(folder, Target.cuda, gpu, overrides)


@with_compilers
@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_two_compilers_and_the_jaxpr_agree_on_dot_flops(folder, program):
    tpu, gpu = compiled(folder, program)
    traced = backends.analyze_abstract(step_factory(compose(PROGRAMS[program][0])), "").dot_flops
    assert tpu["dot_flops"] == pytest.approx(gpu["dot_flops"], rel=1e-4)
    assert tpu["dot_flops"] == pytest.approx(traced, rel=1e-4)
    assert tpu["collective_bytes"]
    assert gpu["collective_bytes"]


@with_compilers
@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_state_is_what_compilers_take_as_arguments(folder, program):
    """With the batch, which is little."""
    for seen in compiled(folder, program):
        assert seen["argument_bytes"] == pytest.approx(seen["state_bytes"], rel=1e-3)
        assert seen["argument_bytes"] > seen["state_bytes"]
        assert seen["peak_bytes"] > seen["argument_bytes"]
        assert not seen["refused"]


WIDE = (*SMALL, "model.width=4096", "model.heads=8", "roster.vocabulary=1048576", "scale.batch=4")


@with_compilers
@pytest.mark.slow
def test_what_does_not_fit_a_tpu_is_refused_in_the_compilers_words(folder):
    seen = asked(folder, Target.tpu, "v5e:2x2", (*WIDE, "mesh.fsdp=4"))
    assert "memory" in seen["refused"]
    assert "exceeds" in seen["refused"] or "Exceeded" in seen["refused"]
    assert "\n" not in seen["refused"]
    assert seen["state_bytes"] > 10 * 2**30


@with_compilers
@pytest.mark.slow
def test_what_does_not_fit_a_gpu_is_refused_though_its_compiler_takes_it(folder):
    seen = asked(folder, Target.cuda, "H100-80G:1x1x1", WIDE)
    assert seen["peak_bytes"] > 0.8 * 84_942_979_072
    assert f"peak of {seen['peak_bytes'] / 2**30:.1f} GiB is above the 63.3 GiB" in seen["refused"]


TOPOLOGIES = """
import json, sys
from harness.aot.gpu_specs import GPUS
from harness.aot.backends import _topology_devices, _tpu_devices
found = {name: _tpu_devices(name) for name in json.loads(sys.argv[1])}
for name, gpu in GPUS.items():
    found[name] = _topology_devices("cuda", name, target_config=gpu.target_config, topology="1x2x4")
print(json.dumps({name: [len(devices), devices[0].device_kind] for name, devices in found.items()}))
"""


@with_compilers
@pytest.mark.slow
def test_jax_still_describes_topologies_of_machines_that_are_not_here():
    """backends.py rests on an experimental module: get_topology_desc with these arguments, which finds the
    plugin `cuda` and the library libtpu by itself. If this fails, nothing is compiled for either."""
    names = {f"{kind}:{shape}": num_chips(shape) for kind, shapes in SLICES.items() for shape in shapes}
    found = json.loads(outside(["-c", TOPOLOGIES, json.dumps([*names])], CPU_ENV | OFFLINE_TPU_ENV))
    assert {name: found[name][0] for name in names} == names
    assert found["GB200"] == [8, "NVIDIA GB200"]
    assert found["v5p:8x8x8"][1].startswith("TPU v5")


@without_compilers
@pytest.mark.parametrize(
    ("look", "topology"),
    [(backends.analyze_tpu, "v5p:2x2x1"), (backends.analyze_cuda, "H100-80G:1x1x4")],
)
def test_without_the_compilers_the_way_to_them_is_named(look, topology):
    with pytest.raises(UserError, match="run `make plan-extras`"):
        look(step_factory(compose(DECODER)), topology)


@pytest.mark.parametrize(
    ("look", "topology", "said"),
    [
        (
            backends.analyze_tpu,
            "v5p:3x3x3",
            r"v5p has no slice of this shape; the nearest is v5p:2x4x4 \(32 chips\)",
        ),
        (backends.analyze_cuda, "V100:1x1x8", "chip=V100 has no listed device properties"),
        (
            backends.analyze_cuda,
            "H100-80G:8",
            "is not slices x hosts x GPUs per host, such as H100-80G:1x64x8",
        ),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_is_built(look, topology, said):
    with pytest.raises(UserError, match=said):
        look(None, topology)


class Failing:
    """A lowered step whose compiler says this."""

    def __init__(self, said):
        self.said = said

    def lower(self):
        return self

    def compile(self, compiler_options):
        raise jax.errors.JaxRuntimeError(self.said)


def failed(monkeypatch, said):
    monkeypatch.setattr(backends, "trace_step", lambda specs: Failing(said))
    make = step_factory(compose((*SMALL, "mesh.data=1")))
    return backends._compile(Target.tpu, "TPU v5e 1x1", make, jax.devices()[:1], {})


def test_too_little_memory_is_an_answer(monkeypatch):
    said = "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in hbm.\nLargest: x\n"
    seen = failed(monkeypatch, said)
    assert seen.refused == "XLA:TPU compile permanent error. Ran out of memory in hbm"
    assert seen.state_bytes > 0
    assert seen.peak_bytes is None


def test_any_other_failure_is_left_to_the_caller(monkeypatch):
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        failed(monkeypatch, "INTERNAL: the compiler has a bug")


@pytest.mark.parametrize(("peak", "fits"), [(99, True), (100, True), (101, False), (None, True)])
def test_a_peak_is_held_against_a_limit(peak, fits):
    seen = CompileStats(Target.cuda, "H100-80G 1x1x8", 8, 1.0, 50, peak_bytes=peak)
    assert (backends._over_budget_message(seen, 100) == "") is fits


def test_the_pinned_compilers_are_those_of_the_pinned_jax():
    pins = dict(line.split("==") for line in LOCK.read_text().split())
    if f"jaxlib=={metadata.version('jaxlib')}" not in LOCK.with_name("requirements.lock").read_text().split():
        pytest.skip("the compilers are pinned for the JAX of requirements.lock, not for the newest")
    wanted = {
        need.name: need
        for need in map(Requirement, metadata.requires("jax") or ())
        if "tpu" in str(need.marker)
    }
    assert wanted["libtpu"].specifier.contains(pins["libtpu"])
    assert pins["jax-cuda12-plugin"] == pins["jax-cuda12-pjrt"] == metadata.version("jaxlib")
    assert pins.keys() >= {"libtpu", "nvidia-cuda-nvcc-cu12"}
