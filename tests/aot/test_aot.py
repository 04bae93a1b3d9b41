"""What is said of a step without its devices, against shapes, closed forms and the compiled program. Slow
ones: `make test-full`."""

import json
import math

import jax
import jax.numpy as jnp
import pytest
from jax import P
from jax.sharding import AbstractMesh, AxisType

from harness.aot import __main__ as room
from harness.aot import backends
from harness.aot.protocol import CompileRequest, Target
from harness.aot.train_step import executed_flops, step_factory
from harness.config.compose import compose
from harness.core.errors import UserError
from harness.models.counting.jaxpr import count_jaxpr_flops
from harness.plan.compilers.trainable_mesh import planned_memory
from harness.records.run.config_file import write_config
from harness.worker.describe import describe
from tests.plan.requested import RequestedRun

TINY = (
    "roster=frontier",
    "roster.vocabulary=64",
    "scale=xs",
    "scale.parameters=80000",
    "scale.batch=16",
    "data.sequence_length=32",
    "model.width=32",
    "model.layers=2",
    "model.heads=4",
    "model.head_width=8",
    "model.ffn=64",
    "cluster=local",
)
EXPERTS = (
    "model.feedforward.name=moe",
    "+model.feedforward.options={experts: 8, top_k: 2, shared: 1, dispatch: capacity}",
)
DENSE = (*TINY, "mesh.data=2", "mesh.fsdp=2", "mesh.tensor=2")
SPARSE = (*TINY, *EXPERTS, "mesh.fsdp=2", "mesh.tensor=2", "mesh.expert=2")
PROGRAMS = {"dense": DENSE, "sparse": SPARSE}
FRONTIER = ("roster=frontier", "member=10t", "cluster=colossus2", "mesh.tensor=32", "mesh.expert=256")
SPLIT = {"width": "fsdp", "heads": "tensor", "kv_heads": "tensor", "ffn": "tensor", "experts": "expert"}


def held(make) -> int:
    """Bytes of one device: of each parameter its part by what its axes are split over, in float32, and its
    two moments."""
    sizes = []
    for spec in make.model.param_specs.values():
        splits = [getattr(make.config.mesh, SPLIT.get(axis, ""), 1) for axis in spec.axes]
        vocabulary = make.config.mesh.tensor if "vocabulary" in spec.axes else 1
        sizes.append(spec.size // math.prod(splits) // vocabulary)
    return 3 * 4 * sum(sizes)


@pytest.mark.parametrize("name", [pytest.param("dense", marks=pytest.mark.slow), "sparse"])
def test_state_is_that_of_the_built_models_shapes_and_products_of_the_closed_form(name):
    make = step_factory(compose(PROGRAMS[name]))
    found = backends.analyze_abstract(make, "")
    counts = found.state_bytes - held(make)
    assert counts in (4, 8), "steps, counted by the optimizer and by nothing else"
    executed = executed_flops(make) / 8
    again = _routers_again(make.config) if name == "sparse" else 0
    assert found.dot_flops == executed + again
    planned = planned_memory(RequestedRun(name, make.config, describe(make.config)), make.config)
    assert planned["weights"] == held(make) / 3
    assert planned["weights"] + planned["optimizer"] == pytest.approx(found.state_bytes, abs=8)
    assert found.devices == 8
    assert found.reshards


def _routers_again(config) -> float:
    """A router is split over its tokens alone, so each of two tensor parts multiplies all of it: forward,
    once more with remat, and twice backward."""
    tokens = config.scale.batch * config.data.sequence_length
    return 4 * 2 * config.model.layers * tokens * config.model.width * 8 / 8


def test_a_product_is_shared_among_the_devices_that_its_operands_are_split_over():
    mesh = AbstractMesh((2, 4), ("a", "b"), axis_types=(AxisType.Explicit,) * 2)

    def operand(*split):
        return jax.ShapeDtypeStruct((8, 8), jnp.float32, sharding=jax.NamedSharding(mesh, P(*split)))

    def count(*splits):
        with jax.sharding.use_abstract_mesh(mesh):
            return count_jaxpr_flops(jax.jit(jnp.dot).trace(*(operand(*each) for each in splits)).jaxpr.jaxpr)

    whole = 2 * 8**3
    assert count((None, None), (None, None)) == whole
    assert count(("a", None), (None, None)) == whole / 2
    assert count(("a", None), (None, "b")) == whole / 8
    assert count((("a", "b"), None), (None, None)) == whole / 8


def test_changes_of_a_sharding_are_counted_and_shardings_that_stay_are_not():
    mesh = AbstractMesh((2, 4), ("a", "b"), axis_types=(AxisType.Explicit,) * 2)

    def moved(x):
        stays = jax.reshard(jnp.sin(x), P("a", None))
        twice = jax.reshard(jax.reshard(stays, P("b", None)), P(None, "b"))
        looped = jax.lax.scan(
            lambda c, _: (jax.reshard(jax.reshard(c, P()), P(None, "b")), None), twice, length=5
        )
        return looped[0] + jax.reshard(x, P(None, "b"))

    with jax.sharding.use_abstract_mesh(mesh):
        x = jax.ShapeDtypeStruct((8, 8), jnp.float32, sharding=jax.NamedSharding(mesh, P("a", None)))
        traced = jax.jit(moved).trace(x)
        module = traced.lower(lowering_platforms=("cuda",)).compiler_ir("stablehlo")
    assert backends.count_reshards(traced.jaxpr.jaxpr) == 2 + 2 + 1
    assert "sdy.sharding_constraint" in str(module)
    backends.propagate_shardings(module)
    assert "sdy.sharding_constraint" not in str(module), "all of them are settled"


def test_the_largest_run_is_lowered_on_131072_devices(capsys):
    make = step_factory(compose([*FRONTIER, "mesh.fsdp=16", "scale.batch=4096"]))
    found = backends.analyze_abstract(make, "")
    with capsys.disabled():
        print(f"\nlowered over {found.devices:,} devices in {found.seconds:.1f} s")
    assert found.devices == 131_072
    assert found.state_bytes - held(make) in (4, 8)
    assert found.uncounted == [
        "kernel __cudnn$fmhaSoftmax not read",
        "kernel __cudnn$fmhaSoftmaxBackward not read",
    ]
    assert 0.8 < found.dot_flops * found.devices / executed_flops(make) < 1


@pytest.mark.slow
def test_half_a_million_devices():
    make = step_factory(compose([*FRONTIER, "mesh.fsdp=64", "scale.batch=16384"]))
    assert backends.analyze_abstract(make, "").state_bytes - held(make) in (4, 8)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_compiled_program_takes_the_same_state_and_multiplies_as_much(name):
    make = step_factory(compose(PROGRAMS[name]))
    lowered, compiled = backends.analyze_abstract(make, ""), backends.analyze_cpu(make, "")
    batch = 16 // 4 * (32 + 1) * 4
    assert compiled.state_bytes == lowered.state_bytes
    assert compiled.argument_bytes == compiled.state_bytes + batch + 6 * 4, "and six numbers of AdamW"
    assert compiled.argument_bytes - batch == pytest.approx(held(make), rel=1e-3)
    assert compiled.dot_flops == lowered.dot_flops
    assert ("all-to-all" in compiled.collective_bytes) == (name == "sparse")
    assert not compiled.trusted


def answers(tmp_path, *configs):
    for index, overrides in enumerate(configs):
        write_config(tmp_path / f"{index}.yaml", compose(overrides))
    request = CompileRequest(
        Target.abstract, tuple(str(tmp_path / f"{index}.yaml") for index in range(len(configs)))
    )
    return [
        room._analyze(room.read_config(path), request) for path in map(tmp_path.__class__, request.configs)
    ]


def test_a_mesh_that_does_not_divide_is_a_sentence_and_the_next_is_answered(tmp_path):
    bad, good = answers(tmp_path, [*DENSE, "mesh.tensor=8"], DENSE)
    assert bad["error"].startswith("mesh.tensor = 8 does not divide heads = 4")
    assert good["executed_flops"] == good["dot_flops"]
    assert json.loads(json.dumps(good))["target"] == "abstract"


def test_what_a_compiler_raises_is_a_sentence(tmp_path, monkeypatch):
    def broken(make, topology):
        raise RuntimeError("INTERNAL: no such thing\nand more")

    monkeypatch.setitem(backends.ANALYZERS, Target.abstract, broken)
    assert answers(tmp_path, DENSE) == [{"error": "abstract: RuntimeError: INTERNAL: no such thing"}]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"target": "gpu", "configs": []}', "'gpu' is not a valid Target"),
        ('{"target": "cpu"}', "KeyError: 'configs'"),
        ("[]", "TypeError"),
        ("{", "JSONDecodeError"),
    ],
)
def test_a_request_that_says_nothing_is_a_sentence(tmp_path, capsys, content, said):
    path = tmp_path / "request.json"
    path.write_text(content)
    with pytest.raises(UserError, match=f"request.json is not a valid request: .*{said}"):
        room.read_request(path)
    assert room.main([str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
