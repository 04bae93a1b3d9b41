"""What a layout holds and moves, against numbers that are known from elsewhere."""

import dataclasses

import numpy as np
import pytest

from harness.config.schema.run import Remat
from harness.core.errors import UserError
from harness.estimate.activations import activation_values
from harness.estimate.clusters import GIB, Links
from harness.estimate.layouts import LayoutGrid, check_layout, divisors
from harness.estimate.memory import MEMORY_LIMIT, MEMORY_UNCERTAINTY, device_memory, parameters_per_device
from harness.estimate.precision import FLOAT32
from harness.estimate.roofline import _ring_seconds, hardware_flops, step_terms, step_traffic
from harness.plan import Layout, load_cluster, predict
from harness.plan.candidate_layouts import enumerate_layouts
from tests.plan.shapes import KIMI_LIKE, frontier, llama


def on(model, **axes):
    return dataclasses.replace(model, batch=axes.pop("batch", model.batch)), LayoutGrid.from_layouts(
        [Layout(**axes)]
    )


def test_state_of_a_trillion_parameters_on_512_devices_is_what_compilers_said():
    model = dataclasses.replace(KIMI_LIKE, parameters=1_045_000_000_000, expert_parameters=0)
    held = device_memory(model, LayoutGrid.from_layouts([Layout(fsdp=512)]))
    assert (held.weights + held.optimizer)[0] / GIB == pytest.approx(19.01, abs=0.01)


def test_peaks_are_near_what_compilers_said():
    """Told without the models' sizes: 44.5 GiB for 1.045T on 512 H100, 10.5T on 4,096 above 80 % of one."""
    one, layout = on(KIMI_LIKE, expert=16, fsdp=32, remat=Remat.full, batch=512)
    assert device_memory(one, layout).total[0] / GIB == pytest.approx(44.5, rel=MEMORY_UNCERTAINTY - 1)
    ten = dataclasses.replace(frontier()[5], sequence=4096, batch=4096)
    room = MEMORY_LIMIT * load_cluster("h100_16k").partition().chip.memory
    for expert in (16, 64, 128, 256):
        split = LayoutGrid.from_layouts([Layout(expert=expert, fsdp=4096 // expert, remat=Remat.full)])
        assert device_memory(ten, split).total[0] > room


@pytest.mark.parametrize(("expert", "fsdp", "gigabytes"), [(16, 32, 657), (128, 8, 337)])
def test_a_badly_laid_out_trillion_moves_twice_as_much(expert, fsdp, gigabytes):
    # Told without the model's sizes: those of Kimi K2, one sequence of 4,096 a device, all recomputed.
    model, layout = on(KIMI_LIKE, expert=expert, fsdp=fsdp, remat=Remat.full, batch=expert * fsdp)
    assert step_traffic(model, layout).total[0] / 1e9 == pytest.approx(gigabytes, rel=0.05)


def test_the_planner_rejects_the_layout_that_moves_more():
    cluster = load_cluster("h100_16k")
    slow, fast = (
        predict(
            dataclasses.replace(KIMI_LIKE, batch=4096),
            cluster,
            Layout(expert=expert, fsdp=fsdp, data=8 * 512 // (expert * fsdp), remat=Remat.full),
        )
        for expert, fsdp in ((16, 32), (128, 4))
    )
    assert slow.devices == fast.devices
    assert fast.step_seconds.value < slow.step_seconds.value


def test_every_device_together_holds_every_parameter_once_for_each_copy():
    layout = LayoutGrid.from_layouts([Layout(data=2, fsdp=4, tensor=8, expert=16, pipeline=61)])
    routed = KIMI_LIKE.expert_parameters * 2
    rest = KIMI_LIKE.dense_parameters * 2 * 16
    assert parameters_per_device(KIMI_LIKE, layout)[0] * layout.devices[0] == pytest.approx(routed + rest)


def test_a_plain_layer_keeps_what_korthikanti_counts():
    # 34 bytes a token and width without scores (arXiv:2205.05198, table 2), of which two masks of dropout and
    # what two plain MLP products of four widths keep more than two norms' inputs.
    model = dataclasses.replace(llama(), width=128 * 64, heads=64, kv_heads=64, ffn=4 * 128 * 64, gated=False)
    assert activation_values(model, 0) * 2 / model.width == pytest.approx(34, abs=3)


def test_remat_trades_memory_for_products():
    model, layout = on(llama(), fsdp=1024, tensor=8)
    layouts = [layout.with_remat(code) for code in range(3)]
    kept = [device_memory(model, each).activations[0] for each in layouts]
    done = [hardware_flops(model, each)[0] for each in layouts]
    assert kept[0] > kept[1] > kept[2]
    assert done[0] == model.step_flops < done[1] < done[2] == pytest.approx(4 / 3 * model.step_flops)


def test_pipelines_keep_as_much_as_they_have_stages_in_flight():
    model, one = on(llama(), data=64, tensor=8)
    _, many = on(llama(), data=64, tensor=8, pipeline=14)
    same = device_memory(model, many).activations / device_memory(model, one).activations
    assert same[0] == pytest.approx(1, rel=1e-9)


def test_a_ring_inside_a_domain_costs_what_the_textbook_says():
    links = Links(8, 400e9, 50e9)
    alone = np.ones(1)
    inside = _ring_seconds(np.array([7e9]), np.array([8]), alone, links)
    assert inside[0] == pytest.approx(7e9 / 400e9 / 0.8)
    across = _ring_seconds(np.array([15e9]), np.array([16]), alone, links)
    assert across[0] == pytest.approx((16e9 * 7 / 8 / 400e9 + 16e9 / 2 / 8 / 50e9) / 0.8)


@pytest.mark.parametrize(
    ("axes", "term"),
    [
        ({"tensor": 8}, "tensor"),
        ({"fsdp": 8}, "fsdp"),
        ({"expert": 64}, "expert"),
        ({"data": 8}, "data"),
        ({"pipeline": 61}, "pipeline"),
        ({"context": 4}, "context"),
    ],
)
def test_each_axis_costs_its_own_term_and_nothing_without_it(axes, term):
    part = load_cluster("h100_16k").partition()
    with_it, without = (
        step_terms(
            KIMI_LIKE,
            LayoutGrid.from_layouts([each]),
            part.chip,
            part.links,
        )
        for each in (Layout(**axes), Layout())
    )
    assert getattr(with_it, term)[0] > 0
    assert getattr(without, term)[0] == 0


def test_the_bubble_is_p_less_one_over_v_m():
    part = load_cluster("h100_16k").partition()
    args = part.chip, dataclasses.replace(part.links, scale_out=1e30)
    found = step_terms(llama(batch=64), LayoutGrid.from_layouts([Layout(pipeline=14, virtual=3)]), *args)
    busy = found.compute + found.memory + found.tensor + found.fsdp
    assert found.pipeline[0] == pytest.approx((busy * 13 / (3 * 64))[0])


@pytest.mark.parametrize(
    ("axes", "named"),
    [
        ({"tensor": 3}, "tensor = 3 does not divide heads = 64"),
        ({"pipeline": 2}, "layers = 61"),
        ({"expert": 5}, "experts = 384"),
        ({"data": 3}, "batch = 4096"),
        ({"context": 3}, "sequence = 4096"),
        ({"data": 0}, "below 1"),
    ],
)
def test_an_axis_that_does_not_divide_is_one_sentence(axes, named):
    with pytest.raises(UserError, match=named):
        check_layout(KIMI_LIKE, Layout(**axes))


def test_a_dense_model_has_no_experts_to_split():
    with pytest.raises(UserError, match="has none"):
        check_layout(llama(), Layout(expert=2))


def test_the_grid_keeps_to_what_divides_and_to_the_devices_there_are():
    layouts = enumerate_layouts(KIMI_LIKE, 3000, 8)
    assert len(layouts) > 100
    assert (layouts.devices <= 3000).all()
    assert (layouts.tensor <= 8).all()
    for row in range(0, len(layouts), 97):
        check_layout(KIMI_LIKE, layouts.layout_at(row))


def test_one_device_in_float32_holds_sixteen_bytes_a_parameter():
    model = dataclasses.replace(KIMI_LIKE, precision=FLOAT32)
    held = device_memory(model, LayoutGrid.from_layouts([Layout()]))
    assert (held.weights + held.optimizer + held.gradients)[0] == 16 * KIMI_LIKE.parameters


def test_divisors():
    assert divisors(36) == [1, 2, 3, 4, 6, 9, 12, 18, 36]


def test_experts_whose_weights_travel_cost_what_they_are():
    """Dropless experts here are gathered over `expert` as over `fsdp`: no token is sent, and splitting either
    axis moves the same bytes."""
    dropless = dataclasses.replace(KIMI_LIKE, gathers_expert_weights=True)
    split = LayoutGrid.from_layouts([Layout(fsdp=8, expert=16), Layout(fsdp=128)])
    moved = step_traffic(dropless, split)
    assert moved.expert.tolist() == [0, 0]
    experts = 3 * 2 * dropless.expert_parameters * 127 / 128 * split.microbatches(dropless)
    rest = 3 * 2 * dropless.dense_parameters * np.array([7 / 8, 127 / 128]) * split.microbatches(dropless)
    assert moved.fsdp == pytest.approx(experts + rest, rel=1e-6)
    assert step_traffic(KIMI_LIKE, split).fsdp[0] < moved.fsdp[0] / 4
