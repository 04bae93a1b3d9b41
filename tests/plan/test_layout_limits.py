"""The search proposes what the harness can train, and keeps what a config has chosen."""

import dataclasses

import numpy as np
import pytest

from harness.config.compose import compose
from harness.config.schema.run import Remat
from harness.core.errors import UserError
from harness.estimate.layout_limits import LayoutLimits, layout_limits
from harness.estimate.layouts import config_layout, with_layout
from harness.estimate.model_size import shape_from_facts
from harness.plan import load_cluster, predict
from harness.plan.candidate_layouts import enumerate_layouts
from harness.plan.layout_search import search_layouts
from harness.plan.plan_cluster import plan_on_cluster
from tests.cli.test_plan import asked_for, facts_of
from tests.plan.requested import RequestedRun
from tests.plan.shapes import KIMI_LIKE, frontier, llama

PART = load_cluster("h100_16k").partition()


def limited(model, **limits):
    divisors = {"fsdp": model.width, "tensor": np.gcd.reduce([model.heads, model.kv_heads, model.ffn])}
    if model.experts:
        divisors["expert"] = model.experts
    return dataclasses.replace(model, limits=LayoutLimits(tuple(divisors.items()), **limits))


@pytest.mark.parametrize("model", [*frontier(), KIMI_LIKE, llama()], ids=lambda model: model.name)
def test_axes_divide_what_they_split_and_no_other_axis_is_split(model):
    layouts = enumerate_layouts(limited(model), 16_384, 72)
    assert len(layouts)
    assert (layouts.pipeline * layouts.context * layouts.virtual == 1).all()
    for size in (model.heads, model.kv_heads, model.ffn):
        assert (size % layouts.tensor == 0).all()
    assert (model.width % layouts.fsdp == 0).all()
    assert (model.batch % (layouts.replicas * layouts.microbatch) == 0).all()
    assert len(layouts) < len(enumerate_layouts(model, 16_384, 72)), "a model of others is free"


def test_stages_have_whole_layers_one_turn_and_equally_many_micro_batches():
    model = limited(KIMI_LIKE)
    stages = LayoutLimits((*model.limits.divisors, ("pipeline", 60), ("context", 4096)))
    layouts = enumerate_layouts(dataclasses.replace(model, layers=60, limits=stages), 2048, 8)
    split = layouts.select(layouts.pipeline > 1)
    assert len(split)
    assert (60 % split.pipeline == 0).all()
    assert (split.microbatches(model) % split.pipeline == 0).all()
    assert (split.virtual == 1).all()
    assert (split.context == 1).all(), "stages take whole sequences"
    assert {*layouts.context} == {1, 2, 4}, "a longer ring takes long to lower"
    ring = dataclasses.replace(stages, axes=(("context", 8),))
    longer = enumerate_layouts(dataclasses.replace(model, layers=60, limits=ring), 2048, 8)
    assert {*longer.context} == {8}, "the config asks for it"


def test_what_the_config_has_chosen_is_kept_and_the_rest_is_searched():
    chosen = {"axes": (("tensor", 2), ("fsdp", 16)), "microbatches": 4, "remat": Remat.dots}
    model = limited(frontier()[6], **chosen)
    best = search_layouts(model, 1024, PART.chip, PART.links).best.layout
    assert (best.tensor, best.fsdp, best.remat) == (2, 16, Remat.dots)
    assert model.batch // (best.data * best.fsdp * best.microbatch) == 4
    assert best.devices > 32, "copies are free"
    assert model.limits.fixed == (
        "mesh.tensor=2", "mesh.fsdp=16", "compute.microbatches=4", "compute.remat=dots",
    )  # fmt: skip


def test_what_cannot_be_kept_is_one_sentence():
    odd = limited(llama(), axes=(("fsdp", 3),))
    with pytest.raises(UserError, match=r"cannot be split over 8 devices with mesh.fsdp=3 of its config"):
        search_layouts(odd, 8, PART.chip, PART.links)
    large = limited(llama(), remat=Remat.none)
    with pytest.raises(
        UserError, match=r"with compute.remat=none of its config: .* compute.remat=full needs"
    ):
        search_layouts(large, 64, PART.chip, PART.links)


def test_limits_are_those_of_the_config():
    config = compose(["scale=xs", "mesh.fsdp=2", "compute.microbatches=2"])
    facts = facts_of(config)
    limits = layout_limits(config, facts)
    assert limits.fixed == ("mesh.fsdp=2", "compute.microbatches=2")
    assert dict(limits.divisors) == facts.divisors
    assert not layout_limits(compose(["scale=xs"]), facts).fixed, "defaults are free"


def test_a_plan_names_what_is_fixed_and_its_layout_becomes_a_config():
    (run,) = asked_for(1)
    config = dataclasses.replace(run.config, mesh=dataclasses.replace(run.config.mesh, tensor=4))
    run = RequestedRun(run.name, config, run.facts)
    (planned,) = plan_on_cluster([run], compose(["cluster=h100_16k"]).cluster).runs
    assert planned.fixed == ("mesh.tensor=4", "compute.remat=full")
    assert planned.layout is not None
    assert config_layout(with_layout(config, planned.layout)) == planned.layout
    assert planned.layout.tensor == 4
    model = shape_from_facts(config, run.facts, run.name)
    assert predict(model, "h100_16k", planned.layout).step_seconds.value == pytest.approx(
        planned.step_seconds.value
    )
