"""One machine for seven runs, and a machine of several kinds."""

import dataclasses

import pytest

from harness.core.errors import UserError
from harness.plan import allocate_chips, load_cluster, run_costs
from harness.plan.allocation.allocated_run import LayoutFinder, makespan
from harness.plan.allocation.mixed_chips import as_single_kind, mixed_efficiency
from harness.plan.allocation.share_chips import allocate_domains
from tests.plan.shapes import frontier


@pytest.fixture(scope="module")
def shared():
    return allocate_chips(frontier(), load_cluster("colossus2"))


def test_all_fit_and_end_at_about_the_same_time(shared):
    assert [member.model.name for member in shared] == [model.name for model in frontier()]
    assert sum(member.chips for member in shared) <= 550_000
    assert all(member.chips % 72 == 0 for member in shared)
    assert all(member.prediction.fits for member in shared)
    days = [member.prediction.days.value for member in shared[:-1]]
    assert max(days) / min(days) < 2  # Axes that must divide leave steps of up to two.


def test_a_pair_gets_equal_chips_and_the_same_layout(shared):
    one, two = shared[0], shared[1]
    assert one.chips == two.chips
    assert (one.prediction.layout, two.prediction.model.name) == (two.prediction.layout, "1t_b")


def test_siblings_that_would_choose_otherwise_share_one_layout():
    """A variant with other heads would not fall on the same layout by itself."""
    part = load_cluster("colossus2").partition()
    find = LayoutFinder(load_cluster("colossus2"))
    one = frontier()[2]
    two = dataclasses.replace(one, name="1p5t_b", flops_per_token=0.85 * one.flops_per_token, heads=80)
    alone = [find([model], part, 41_616)[0].prediction.layout for model in (one, two)]
    pair = [member.prediction.layout for member in find([one, two], part, 41_616)]
    assert alone[0] != alone[1]
    assert pair[0] == pair[1]
    assert pair[0] in alone


def test_given_shares_are_kept():
    shares = {model.name: 1.0 for model in frontier()}
    members = allocate_chips(frontier(), load_cluster("h100_16k"), shares=shares)
    assert all(abs(member.chips - 16_384 / 7) <= 8 for member in members)
    with pytest.raises(UserError, match=r"shares\.10t=None: give each of"):
        allocate_chips(
            frontier(), load_cluster("colossus2"), shares={k: v for k, v in shares.items() if k != "10t"}
        )


def test_the_account_of_a_run_says_with_what_alone_it_can(shared):
    cluster = load_cluster("colossus2")
    accounts = {m.model.name: run_costs(cluster, m.prediction, m.chips) for m in shared}
    largest, smallest = accounts["10t"], accounts["image"]
    assert largest.verdict.startswith("only with")
    assert "full restarts" in largest.verdict
    assert smallest.verdict == ""
    assert largest.days.value == pytest.approx(
        shared[5].prediction.days.value / max(way.goodput for way in largest.options)
    )
    assert largest.interruptions == pytest.approx(largest.days.value * 24 / largest.mtbf_hours)
    assert largest.gigawatt_hours.value == pytest.approx(
        shared[5].chips * 1670 * 1.2 * largest.days.value * 24 / 1e9
    )


def test_a_member_that_cannot_run_says_why_and_stops_no_other():
    members = allocate_chips(
        frontier(), load_cluster("h100_16k"), shares={model.name: 1.0 for model in frontier()}
    )
    refused = {member.model.name: member.refusal for member in members if member.prediction is None}
    assert "10t" in refused
    assert "fits nowhere" in refused["10t"]
    assert "image" not in refused


def test_mixing_costs_what_the_slowest_chip_takes():
    parts = load_cluster("colossus1").partitions
    speeds = {"h100": 989 * 0.68, "h200": 989 * 0.68, "gb200": 2450 * 0.70}
    mean = sum(part.chips * speeds[part.name] for part in parts) / sum(part.chips for part in parts)
    assert mixed_efficiency(load_cluster("colossus1")) == pytest.approx(989 * 0.68 / mean)
    assert mixed_efficiency(load_cluster("colossus2")) == 1


def test_partition_by_kind_wins_back_what_mixing_costs():
    cluster = load_cluster("colossus1")
    mixed = as_single_kind(cluster)
    assert (mixed.chips, mixed.partition().links.scale_up_domain) == (cluster.chips, 8)
    assert mixed.partition().mtbf_hours(1000) == pytest.approx(5.8 * 8766 / 1000)
    apart, together = allocate_chips(frontier(), cluster), allocate_chips(frontier(), mixed)
    assert 1 < makespan(together) / makespan(apart) < 2
    assert {member.kind for member in apart} == {"h100", "h200", "gb200"}
    for part in cluster.partitions:
        assert sum(member.chips for member in apart if member.kind == part.name) <= part.chips


def test_domains_are_whole_and_in_proportion():
    assert allocate_domains([1, 1, 2], [1, 1, 1], 8 * 8, 8) == [16, 16, 32]
    assert allocate_domains([1, 2], [2, 1], 8 * 8, 8) == [16, 32]
    given = allocate_domains([1e-9, 5, 3], [1, 1, 1], 1000, 72)
    assert given[0] == 72
    assert sum(given) == 13 * 72
    with pytest.raises(UserError, match="3 runs need a fast domain"):
        allocate_domains([1, 1], [1, 2], 16, 8)
