"""Placement: what must hold of every plan, how near the ideal it comes, and small ones by brute force."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config.schema.engine import Schedule
from harness.core.errors import UserError
from harness.launcher.placement.list_scheduling import BlockJob, pack
from harness.launcher.placement.options import DevicePartition, PlacementOptions, RunTask
from harness.launcher.placement.search import SweepSchedule, place_tasks

QUEUE, STATIC = Schedule.queue, Schedule.static


def scaling(work: float, widest: int, efficiency: float = 1.0) -> dict[int, float]:
    """Seconds at widths 1, 2, 4... `efficiency`: what a doubling leaves of the rate of a device."""
    widths = [2**k for k in range(widest.bit_length())]
    return {width: work / (width * efficiency ** math.log2(width)) for width in widths}


def roster(capped: bool, efficiency: float) -> list[RunTask]:
    """Seven models: an image model, 1T A and B, 1.5T A and B, 6T, 10T. FLOPs are in proportion to parameters
    x tokens: 20 a parameter, or as many for each."""
    sizes = [("imagine_v2", 0.4, 128), ("1t_a", 1, 256), ("1t_b", 1, 256)]
    sizes += [("1p5t_a", 1.5, 256), ("1p5t_b", 1.5, 256), ("6t", 6, 512), ("10t", 10, 512)]
    return [
        RunTask(
            name, name.removesuffix("_a").removesuffix("_b"), scaling(p if capped else p * p, w, efficiency)
        )
        for name, p, w in sizes
    ]


def plain_bound(tasks: Sequence[RunTask], devices: int) -> float:
    """The larger of least work over devices, and the longest run at its widest."""
    work = sum(min(w * s for w, s in task.seconds.items()) for task in tasks) / devices
    return max(work, *(min(s for w, s in task.seconds.items() if w <= devices) for task in tasks))


def check(plan: SweepSchedule, tasks: Sequence[RunTask], machine: Sequence[DevicePartition]) -> None:
    """Everything that makes a plan one."""
    assert [booking.task for booking in plan.reservations] == [task.name for task in tasks]
    starts = np.cumsum([0, *(part.devices for part in machine)])
    room = {part.kind: (starts[i], starts[i + 1], part.speed) for i, part in enumerate(machine)}
    for booking, task in zip(plan.reservations, tasks, strict=True):
        first, end, speed = room[booking.kind]
        assert first <= booking.first_device
        assert booking.first_device + booking.width <= end, "spans two kinds, or the end of the machine"
        assert booking.end - booking.start == pytest.approx(task.seconds[booking.width] / speed)
    check_no_overlap(plan)
    check_blocks(plan)
    assert plan.makespan >= plan.ideal_makespan * (1 - 1e-9)
    assert 0 < plan.utilisation <= 1 + 1e-9


def check_no_overlap(plan: SweepSchedule) -> None:
    for one, other in itertools.combinations(plan.reservations, 2):
        apart = (
            one.first_device + one.width <= other.first_device
            or other.first_device + other.width <= one.first_device
        )
        assert apart or one.end <= other.start + 1e-9 or other.end <= one.start + 1e-9, (one, other)


def check_blocks(plan: SweepSchedule) -> None:
    blocks: dict[str, list] = {}
    for booking in plan.reservations:
        blocks.setdefault(booking.block, []).append(booking)
    for lanes in blocks.values():
        assert len({(lane.width, lane.start, lane.kind) for lane in lanes}) == 1
        assert [lane.first_device for lane in lanes] == [
            lanes[0].first_device + i * lanes[0].width for i in range(len(lanes))
        ], "not side by side in the order given"


@st.composite
def instances(draw, most: int = 7, kinds: int = 2) -> tuple[list[RunTask], list[DevicePartition]]:
    """Blocks of one to three runs, any widths and any times; one or two kinds of device, all of which
    hold the narrowest form of every block."""
    tasks: list[RunTask] = []
    for block in range(draw(st.integers(1, most))):
        widths = draw(st.sets(st.integers(1, 6), min_size=1, max_size=3))
        for lane in range(draw(st.integers(1, 3))):
            seconds = {width: draw(st.floats(0.1, 50.0)) for width in sorted(widths)}
            tasks.append(RunTask(f"{block}/{lane}", str(block), seconds))
    machine = [
        DevicePartition(f"kind{i}", draw(st.integers(18, 30)), draw(st.sampled_from([0.5, 1.0, 2.0])))
        for i in range(draw(st.integers(1, kinds)))
    ]
    return tasks, machine


@settings(max_examples=40, deadline=None)
@given(instances())
def test_a_queue_is_a_plan(instance: tuple[list[RunTask], list[DevicePartition]]):
    check(place_tasks(*instance, QUEUE), *instance)


@settings(deadline=None)
@given(instances(most=4))
def test_all_at_once_is_a_plan_in_which_everything_starts_together(instance):
    tasks, machine = instance
    try:
        plan = place_tasks(tasks, machine, STATIC)
    except UserError as error:
        assert "engine.schedule=queue" in str(error)  # noqa: PT017
        return
    check(plan, tasks, machine)
    assert {booking.start for booking in plan.reservations} == {0.0}


@given(instances())
def test_the_ideal_is_no_less_than_the_plain_bounds(instance):
    tasks, machine = instance
    fastest = max(part.speed for part in machine)
    capacity = sum(part.devices * part.speed for part in machine)
    work = sum(min(w * s for w, s in task.seconds.items()) for task in tasks) / capacity
    longest = max(min(task.seconds.values()) for task in tasks) / fastest
    assert PlacementOptions(tasks, machine).ideal_makespan >= max(work, longest) * (1 - 1e-9)


def brute_force(tasks: Sequence[RunTask], devices: int) -> float:
    """The least makespan over every choice of widths and every order, each block put as early as it goes,
    on the grid of devices and of the moments at which something ends."""
    blocks = [[*group] for _, group in itertools.groupby(tasks, key=lambda task: task.block)]
    options = [
        [(w, [run.seconds[w] for run in runs]) for w in runs[0].seconds if w * len(runs) <= devices]
        for runs in blocks
    ]
    return min(
        _earliest(order, devices)
        for chosen in itertools.product(*options)
        for order in itertools.permutations(chosen)
    )


def _earliest(order, devices: int) -> float:
    taken: list[tuple[int, int, float, float]] = []
    for width, seconds in order:
        moments = sorted({0.0, *(end for *_, end in taken)})
        spots = itertools.product(moments, range(devices - width * len(seconds) + 1))
        for start, first in spots:
            lanes = [
                (first + i * width, first + (i + 1) * width, start, start + s) for i, s in enumerate(seconds)
            ]
            if all(
                a[1] <= b[0] or b[1] <= a[0] or a[3] <= b[2] or b[3] <= a[2] for a in lanes for b in taken
            ):
                taken += lanes
                break
    return max(end for *_, end in taken)


@pytest.mark.parametrize("seed", range(15))
def test_small_instances_come_near_brute_force_and_the_bound_below_it(seed):
    draw = np.random.default_rng(seed)
    tasks = [
        RunTask(f"{block}{lane}", str(block), scaling(draw.uniform(1, 20), 4, draw.uniform(0.7, 1.0)))
        for block in range(4)
        for lane in range(draw.integers(1, 3))
    ]
    plan, best = place_tasks(tasks, [DevicePartition("devices", 5)], QUEUE), brute_force(tasks, 5)
    assert plan.ideal_makespan <= best * (1 + 1e-9)
    assert plan.makespan <= best * 1.1


@pytest.mark.parametrize("devices", [8, 16, 32, 512])
@pytest.mark.parametrize("capped", [False, True])
def test_seven_models_end_near_the_ideal_where_they_scale_perfectly(devices, capped):
    tasks = roster(capped, 1.0)
    plan = place_tasks(tasks, [DevicePartition("devices", devices)], QUEUE)
    check(plan, tasks, [DevicePartition("devices", devices)])
    assert plain_bound(tasks, devices) / plan.makespan >= 0.95


@pytest.mark.parametrize("devices", [8, 16, 32, 512])
@pytest.mark.parametrize("efficiency", [0.98, 0.995])
@pytest.mark.parametrize("capped", [False, True])
def test_and_where_each_doubling_costs_them_something(devices, efficiency, capped):
    tasks = roster(capped, efficiency)
    plan = place_tasks(tasks, [DevicePartition("devices", devices)], QUEUE)
    assert plan.ideal_makespan / plan.makespan >= 0.95


def test_ten_thousand_runs_on_half_a_million_devices_take_seconds():
    draw = np.random.default_rng(0)
    tasks = [
        RunTask(
            f"{block}{lane}",
            str(block),
            scaling(10 ** draw.uniform(3, 7), 2 ** int(draw.integers(6, 13)), 0.99),
        )
        for block in range(5000)
        for lane in "ab"
    ]
    begin = time.process_time()
    plan = place_tasks(tasks, [DevicePartition("devices", 500_000)], QUEUE)
    assert time.process_time() - begin < 10
    assert plan.ideal_makespan / plan.makespan > 0.8


def test_static_ends_together_at_the_least_common_time():
    tasks = [RunTask(name, name, scaling(work, 16)) for name, work in (("a", 32.0), ("b", 16.0), ("c", 8.0))]
    plan = place_tasks(tasks, [DevicePartition("devices", 14)], STATIC)
    assert [(booking.width, booking.end) for booking in plan.reservations] == [(8, 4.0), (4, 4.0), (2, 4.0)]


def test_static_that_does_not_fit_is_refused_with_the_number_that_would_do():
    tasks = [RunTask(str(i), str(i), {2: 1.0}) for i in range(5)]
    with pytest.raises(UserError, match="5 blocks at once need 10 devices or more, but there are 9"):
        place_tasks(tasks, [DevicePartition("devices", 9)], STATIC)
    place_tasks(tasks, [DevicePartition("devices", 10)], STATIC)


def test_a_block_that_no_partition_holds_is_refused():
    tasks = [RunTask(name, "pair", {4: 1.0}) for name in "ab"]
    with pytest.raises(
        UserError, match=r"pair trains 2 runs side by side on 4 devices each. Set engine.devices to 8"
    ):
        place_tasks(tasks, [DevicePartition("fast", 7), DevicePartition("slow", 6)], QUEUE)


def test_variants_without_a_common_width_are_refused():
    with pytest.raises(UserError, match="no width in common"):
        place_tasks(
            [RunTask("a", "x", {2: 1.0}), RunTask("b", "x", {3: 1.0})], [DevicePartition("devices", 8)], QUEUE
        )


def test_a_slower_kind_never_sets_the_pace():
    """One long run and one short one: the long one belongs on the fast devices, at their speed."""
    tasks = [RunTask("long", "long", {4: 100.0}), RunTask("short", "short", {4: 10.0})]
    plan = place_tasks(tasks, [DevicePartition("slow", 4, 0.1), DevicePartition("fast", 4, 1.0)], QUEUE)
    assert plan.reservations[0].kind == "fast"
    assert plan.makespan <= 110.0


def test_a_wide_job_waits_for_ends_that_are_equal_but_for_rounding():
    spots = pack(
        2, [BlockJob(1, (0.1 + 0.2,)), BlockJob(1, (0.3,)), BlockJob(2, (1.0,)), BlockJob(1, (9.0,))]
    )
    assert spots[2].start == pytest.approx(0.3)


def test_the_same_tasks_get_the_same_plan():
    tasks = roster(True, 0.99)
    one, other = (place_tasks(tasks, [DevicePartition("devices", 48)], QUEUE) for _ in range(2))
    assert one == other
