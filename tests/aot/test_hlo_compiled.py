"""Programs compiled here, for simulated devices, against FLOPs and bytes by hand and against the jaxpr."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax import P
from jax.sharding import AxisType

from harness.aot.hlo import read_hlo
from harness.config.compose import compose
from harness.config.schema.run import Remat
from harness.estimate.layouts import Layout, LayoutGrid
from harness.estimate.model_size import decoder_shape
from harness.estimate.precision import FLOAT32
from harness.estimate.roofline import step_traffic
from harness.models import build
from harness.models.counting.jaxpr import count_function_flops
from harness.parallel.sharding.mesh import lane_mesh
from harness.training.programs.program_specs import ProgramSpecs

ROWS, WIDTH, LAYERS = 4, 64, 5
ONCE = 2 * ROWS * WIDTH * WIDTH
"""FLOPs of a product of x with one weight."""

X = jax.ShapeDtypeStruct((ROWS, WIDTH), jnp.float32)
W = jax.ShapeDtypeStruct((WIDTH, WIDTH), jnp.float32)
STACK = jax.ShapeDtypeStruct((LAYERS, WIDTH, WIDTH), jnp.float32)
NUMBER = jax.ShapeDtypeStruct((), jnp.int32)


QUICK: dict[str, str | bool] = {
    "xla_backend_optimization_level": "0",
    "xla_llvm_disable_expensive_passes": "True",
}
"""Machine code is not looked at, so little is spent on it."""


def read(function, *arguments):
    text = jax.jit(function).lower(*arguments).compile(compiler_options=QUICK).as_text()
    assert text is not None
    return read_hlo(text)


def layer(x, w):
    return jnp.tanh(x @ w), None


def scanned(x, stack):
    return jax.lax.scan(layer, x, stack)[0]


def nested(x, stack):
    """Each layer three times."""

    def thrice(x, w):
        return jax.lax.scan(lambda x, _: layer(x, w), x, None, length=3)[0], None

    return jax.lax.scan(thrice, x, stack)[0]


def by_two(x, w):
    """For 1, 3 and 5."""

    def turn(state):
        return state[0] + 2, layer(state[1], w)[0]

    return jax.lax.while_loop(lambda state: state[0] < 7, turn, (1, x))[1]


def until(limit, x, w):
    def turn(state):
        return state[0] + 1, layer(state[1], w)[0]

    return jax.lax.while_loop(lambda state: state[0] < limit, turn, (0, x))[1]


def switched(which, x, w):
    return jax.lax.switch(which, [lambda x: x, lambda x: x @ w @ w @ w, lambda x: x @ w], x)


def batched(a, b):
    return jnp.einsum("bhij,bhjk->bhik", a, b)


PROGRAMS = {
    "scan": (scanned, (X, STACK), LAYERS * ONCE),
    "scan in a scan": (nested, (X, STACK), LAYERS * 3 * ONCE),
    "a while that steps by two": (by_two, (X, W), 3 * ONCE),
    "a while up to an argument": (until, (NUMBER, X, W), ONCE),
    "a switch": (switched, (NUMBER, X, W), 3 * ONCE),
    "batch dimensions": (
        batched,
        (
            jax.ShapeDtypeStruct((2, 3, 8, 16), jnp.bfloat16),
            jax.ShapeDtypeStruct((2, 3, 16, 32), jnp.bfloat16),
        ),
        2 * (2 * 3) * 8 * 32 * 16,
    ),
    "a convolution": (
        lambda a, b: jax.lax.conv(a, b, (2, 2), "SAME"),
        (jax.ShapeDtypeStruct((2, 3, 9, 9), jnp.float32), jax.ShapeDtypeStruct((8, 3, 3, 3), jnp.float32)),
        2 * (2 * 8) * 3 * 13 * 13,
    ),
}
"""The convolution meets its input at 13 taps an axis: of five places the first and the last see two."""


@pytest.mark.parametrize("name", PROGRAMS)
def test_products(name):
    function, arguments, flops = PROGRAMS[name]
    counts = read(function, *arguments)
    assert counts.dot_flops == flops
    assert len(counts.unknown_loops) == (name == "a while up to an argument")


def test_traffic():
    """One of each kind on either axis of a 2 x 4 mesh, three times in a scan; 64 x 8 numbers of 4 bytes."""

    def turn(x, _):
        for axis in ("two", "four"):
            shard = jax.lax.psum_scatter(x, axis, tiled=True)
            x = jax.lax.all_gather(jnp.tanh(shard), axis, tiled=True)
            x = jnp.tanh(jax.lax.all_to_all(x, axis, 0, 0, tiled=True))
            x = jnp.tanh(jax.lax.psum(x, axis))
        return jax.lax.ppermute(x, "four", [(0, 1), (1, 2), (2, 3), (3, 0)]), None

    def program(x):
        return jax.lax.scan(turn, x, None, length=3)[0]

    mesh = jax.make_mesh((2, 4), ("two", "four"), axis_types=(AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        held_alike = jax.shard_map(program, in_specs=P(), out_specs=P(), check_vma=False)
        moved = read(held_alike, jax.ShapeDtypeStruct((64, 8), jnp.float32)).collective_bytes
    size = 64 * 8 * 4
    ring = 3 * (1 / 2 + 3 / 4) * size
    assert moved == {
        "all-gather": ring,
        "reduce-scatter": ring,
        "all-to-all": ring,
        "all-reduce": 2 * ring,
        "collective-permute": 3 * size,
    }


TINY = (
    "data.tokenizer=byte",
    "data.sequence_length=32",
    "scale.batch=8",
    "model.width=32",
    "model.layers=3",
    "model.heads=4",
    "model.head_width=8",
    "model.ffn=64",
    "compute.scan_layers=true",
)
MOE = ("model.feedforward.name=moe", "+model.feedforward.options={experts: 4, top_k: 2}")


def step_of(*overrides):
    """What the text of a training step says, and FLOPs of one device by its jaxpr."""
    config = compose([*TINY, *overrides])
    model = build(config, 256)
    devices = config.mesh.devices
    specs = ProgramSpecs(config, model, lane_mesh(jax.devices()[:devices], config.mesh))
    with specs.mesh_context():
        counts = read(specs.step, *specs.step_arguments)
        return counts, count_function_flops(specs.step, *specs.step_arguments)


STEPS = [
    pytest.param((), id="decoder"),
    pytest.param(MOE, id="moe", marks=pytest.mark.slow),
    pytest.param(("compute.remat=full", "compute.microbatches=2"), id="remat", marks=pytest.mark.slow),
    pytest.param(("mesh.data=2", "mesh.fsdp=2", "mesh.tensor=2"), id="mesh", marks=pytest.mark.slow),
]
"""The slow ones run under `make test-extras`, which needs no extras for them."""


@pytest.mark.parametrize("overrides", STEPS)
def test_a_training_step(overrides):
    """Its layers, and its micro-batches, are loops; the devices of a mesh share the products evenly."""
    counts, expected = step_of(*overrides)
    assert counts.dot_flops == expected
    assert counts.unknown_loops == counts.unread_kernels == ()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("remat", "context"), [("none", 4), ("dots", 4), ("full", 4), ("none", 2), ("full", 2)]
)
def test_what_a_split_sequence_sends_is_what_a_plan_counts(remat, context):
    """Around the ring to the byte; sums of gradients within a thousandth, which is those of the loss. Of what
    JAX keeps between the passes nothing is gathered over the devices that share the batch. Done again, scores
    are multiplied once for that and for the gradient, as far as they are not in the loops: of a device's own
    part, and of the other one where there is one."""
    axes = {"data": 2, "context": context}
    mesh = [f"mesh.{axis}={size}" for axis, size in axes.items()]
    counts, expected = step_of(*mesh, f"compute.remat={remat}", "model.tie_embeddings=false")
    shape = decoder_shape(
        name="tiny", layers=3, width=32, heads=4, head_width=8, ffn=64, vocabulary=256, sequence=32, batch=8,
        tied=False,
    )  # fmt: skip
    layouts = LayoutGrid.from_layouts([Layout(**axes, remat=Remat(remat))])
    planned = step_traffic(dataclasses.replace(shape, precision=FLOAT32), layouts)
    assert counts.collective_bytes["collective-permute"] == planned.context[0]
    assert counts.collective_bytes["all-reduce"] == pytest.approx(planned.data[0], rel=1e-3)
    assert "all-gather" not in counts.collective_bytes
    scores = 2 * 8 / axes["data"] * 4 * 8 * (32 / context) ** 2
    once = 0 if remat == "none" else {2: 2, 4: 1}[context]
    assert counts.dot_flops == expected - 3 * once * scores
