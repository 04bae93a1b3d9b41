"""Every layout that a plan proposes for a model of the harness lowers, on 8 to 64 devices."""

import functools
from collections.abc import Sequence

import pytest

from harness.aot.train_step import step_factory, trace_step
from harness.config.compose import compose
from harness.config.schema.run import Config
from harness.estimate.layouts import AXES, Layout, LayoutGrid, with_layout
from harness.estimate.model_size import ModelShape, shape_from_facts
from harness.parallel.sharding.mesh import abstract_mesh
from harness.plan.candidate_layouts import enumerate_layouts
from harness.worker.describe import describe

SMALL = (
    "roster=frontier",
    "roster.vocabulary=64",
    "scale=xs",
    "scale.parameters=80000",
    "scale.batch=64",
    "scale.tokens=10000000",
    "model.width=64",
    "model.layers=4",
    "model.heads=8",
    "model.head_width=8",
    "model.ffn=64",
    "compute.scan_layers=true",
    "cluster=local",
)
MOE = "model.feedforward.name=moe"
MODELS = {
    "dense": ("data.sequence_length=32",),
    "long": ("data.sequence_length=4096", "model.attention.name=gqa", "+model.attention.options.kv_heads=2"),
    "capacity": (
        "data.sequence_length=32",
        MOE,
        "+model.feedforward.options={experts: 8, shared: 1, dispatch: capacity}",
    ),
    "dropless": ("data.sequence_length=32", MOE, "+model.feedforward.options={experts: 4}"),
}


@functools.cache
def model_of(name: str) -> tuple[Config, ModelShape]:
    config = compose([*SMALL, *MODELS[name]])
    return config, shape_from_facts(config, describe(config))


def kinds_of_layouts(grids: Sequence[LayoutGrid]) -> list[Layout]:
    """One candidate of each set of axes that are split, with one micro-batch and with several, from the grids
    in turn."""
    kinds: dict[tuple[bool, ...], list[Layout]] = {}
    for grid in grids:
        last = {_kind(layout): layout for layout in map(grid.layout_at, range(len(grid)))}
        for kind, layout in last.items():
            kinds.setdefault(kind, []).append(layout)
    return [layouts[turn % len(layouts)] for turn, layouts in enumerate(kinds.values())]


def _kind(layout: Layout) -> tuple[bool, ...]:
    return (*(getattr(layout, axis) > 1 for axis in AXES), layout.microbatch > 1)


def lower(config: Config) -> str:
    specs = step_factory(config)(abstract_mesh(config.mesh))
    with specs.mesh_context():
        return trace_step(specs).lower(lowering_platforms=("cpu",)).as_text()


def test_a_pipeline_with_experts_and_tensor_lowers_on_sixteen():
    config, model = model_of("capacity")
    grid = enumerate_layouts(model, 16, 8)
    chosen = [n for n, p in enumerate(grid.pipeline) if p > 1 and grid.expert[n] > 1 and grid.tensor[n] > 1]
    text = lower(with_layout(config, grid.layout_at(chosen[0])))
    assert "collective_permute" in text
    assert "all_to_all" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_candidate_lowers(name):
    """All candidates are thousands: one of each set of axes is lowered."""
    config, model = model_of(name)
    layouts = kinds_of_layouts([enumerate_layouts(model, devices, 8) for devices in (8, 16, 32, 64)])
    assert {layout.devices for layout in layouts} >= {8, 64}
    assert any(layout.pipeline > 1 for layout in layouts)
    for layout in layouts:
        assert lower(with_layout(config, layout)), layout
