"""The closed form of a step's memory against the sizes of compiled steps, on simulated devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness.aot.train_step import step_factory, trace_step
from harness.config.compose import compose
from harness.estimate.activations import _product_bytes, kept_bytes
from harness.estimate.layouts import LayoutGrid, config_layout
from harness.estimate.model_size import shape_from_facts
from harness.estimate.ways_to_fit import layout_memory
from harness.models import build
from harness.models.products import matrix_unit
from harness.parallel.sharding.mesh import lane_mesh
from harness.worker.describe import describe

SIZES = (
    "scale=xs", "model.match=none", "model.head_width=64", "model.width=256", "model.layers=6",
    "model.heads=4", "model.ffn=1024", "data.sequence_length=512", "scale.batch=16", "scale.tokens=819200",
    "compute.scan_layers=true",
)  # fmt: skip
"""Large enough that activations are most of the memory."""


def bytes_kept(layers: int, remat: str, dtype: str) -> float:
    """Bytes that JAX keeps of a token for the backward pass, without parameters. No array of three sequences
    has the size of a weight."""
    changed = [f"model.layers={layers}", f"compute.remat={remat}", f"compute.dtype={dtype}"]
    config = compose([*SIZES, *changed, "compute.scan_layers=false", "scale.batch=3"])
    model = build(config, 512)
    params = {path: jax.ShapeDtypeStruct(s.shape, jnp.float32) for path, s in model.stored_specs.items()}
    tokens = jax.ShapeDtypeStruct((3, 513), jnp.int32)
    kept = jax.eval_shape(
        lambda params, tokens: jax.vjp(lambda p: model.loss(p, tokens, 0.0)[0], params)[1], params, tokens
    )
    leaves = [leaf for leaf in jax.tree.leaves(kept) if np.prod(leaf.shape) >= 3 * 512]
    weights = {spec.shape for spec in model.param_specs.values()}
    flat = {int(np.prod(shape)) for shape in weights}
    own = [leaf for leaf in leaves if int(np.prod(leaf.shape)) not in flat]
    return sum(np.prod(leaf.shape) * leaf.dtype.itemsize for leaf in own) / (3 * 512)


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float32", marks=pytest.mark.slow)])
def test_a_layer_keeps_what_jax_keeps(dtype, monkeypatch):
    monkeypatch.setattr(matrix_unit, "is_for_cpu", lambda: False)  # which keeps other arrays
    config = compose([*SIZES, f"compute.dtype={dtype}"])
    model = shape_from_facts(config, describe(config))
    one = LayoutGrid.from_layouts([config_layout(config)])
    for remat, count in (("none", kept_bytes), ("dots", _product_bytes)):
        traced = bytes_kept(2, remat, dtype) - bytes_kept(1, remat, dtype)
        assert count(model).on_device(one)[0] == pytest.approx(traced, rel=0.12), remat


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [
        [],
        ["compute.remat=dots"],
        ["compute.remat=full"],
        ["compute.remat=full", "mesh.fsdp=4"],
        ["mesh.data=2", "mesh.tensor=2"],
        ["compute.microbatches=8"],
        ["compute.microbatches=8", "compute.remat=full", "mesh.fsdp=2"],
        ["compute.remat=full", "mesh.context=4"],
        ["compute.remat=full", "data.sequence_length=2048", "scale.batch=4"],
        ["compute.remat=full", "model.width=1024", "model.heads=16", "model.ffn=4096", "scale.batch=4"],
        ["compute.remat=full", "mesh.fsdp=4", "model.width=1024", "model.heads=16", "model.ffn=4096"],
    ],
    ids=" ".join,
)
def test_a_compiled_step_needs_what_is_estimated(changed, monkeypatch):
    """From .9 to 1.3 times the compiled size, whatever remat, mesh and micro-batches. Slow: it compiles."""
    monkeypatch.setattr(matrix_unit, "is_for_cpu", lambda: False)  # which keeps other arrays
    config = compose([*SIZES, *changed])
    specs = step_factory(config)(lane_mesh(jax.devices()[: config.mesh.devices], config.mesh))
    sizes = trace_step(specs).lower().compile().memory_analysis()
    assert sizes is not None
    results = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    compiled = sizes.argument_size_in_bytes + results + sizes.temp_size_in_bytes
    model = shape_from_facts(config, describe(config))
    ratio = sum(layout_memory(model, config_layout(config)).values()) / compiled
    print(f"{' '.join(changed)}: estimated over compiled {ratio:.2f}")
    assert 0.9 < ratio < 1.3
