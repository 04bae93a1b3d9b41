"""One machine for seven runs, and a machine of several kinds."""

import time

import pytest

from harness.config.errors import UserError
from harness.plan import load, predict, share_out
from harness.plan.partition import mixing, together, whole_domains
from tests.plan.shapes import frontier, llama


def test_seven_models_share_550_000_devices_in_under_ten_seconds():
    start = time.process_time()  # Not of the wall: the machine is shared.
    members = share_out(frontier(), load("colossus2"))
    assert time.process_time() - start < 10
    assert [member.model.name for member in members] == [model.name for model in frontier()]
    assert sum(member.chips for member in members) <= 550_000
    assert all(member.chips % 72 == 0 for member in members)
    days = [member.prediction.days.value for member in members[:-1]]
    assert max(days) / min(days) < 2  # Axes that must divide leave steps of up to two.
    assert all(member.prediction.fits for member in members)
    one, two = members[0].prediction, members[1].prediction
    assert (one.layout, one.step_seconds, two.model.name) == (two.layout, two.step_seconds, "1t_b")


def test_given_shares_are_kept():
    shares = {model.name: 1.0 for model in frontier()}
    members = share_out(frontier(), load("colossus2"), shares=shares)
    assert {member.chips for member in members} <= {549_936 // 72 // 7 * 72, (549_936 // 72 // 7 + 1) * 72}
    with pytest.raises(UserError, match="shares name no 10t"):
        share_out(frontier(), load("colossus2"), shares={k: v for k, v in shares.items() if k != "10t"})


def test_a_member_that_cannot_run_says_why_and_stops_no_other():
    members = share_out(frontier(), load("h100_16k"), shares={model.name: 1.0 for model in frontier()})
    refused = {member.model.name: member.refused for member in members if member.prediction is None}
    assert "10t" in refused
    assert "fits nowhere" in refused["10t"]
    assert "image" not in refused


def test_mixing_costs_what_the_slowest_chip_takes():
    found = mixing(load("colossus1"))
    parts = load("colossus1").partitions
    speeds = {"h100": 989 * 0.68, "h200": 989 * 0.68, "gb200": 2450 * 0.70}
    mean = sum(part.chips * speeds[part.name] for part in parts) / sum(part.chips for part in parts)
    assert found.efficiency == pytest.approx(989 * 0.68 / mean)
    assert found.won_back == pytest.approx(1 / found.efficiency)
    assert mixing(load("colossus2")).efficiency == 1


def test_partition_by_kind_wins_back_what_mixing_costs():
    cluster = load("colossus1")
    mixed = together(cluster)
    assert mixed.chips == cluster.chips
    assert mixed.links.fast_domain == 8
    whole = predict(llama(), cluster.only("gb200"))
    assert mixed.chip.peak("bf16") < whole.model.step_flops
    assert mixed.mtbf_hours(1000) == pytest.approx(5.8 * 8766 / 1000)
    members = share_out(frontier(), cluster)
    assert {member.kind for member in members} > {"h100"}
    for part in cluster.partitions:
        assert sum(member.chips for member in members if member.kind == part.name) <= part.chips


def test_domains_are_whole_and_in_proportion():
    assert whole_domains([1, 1, 2], 8 * 8, 8) == [16, 16, 32]
    given = whole_domains([1e-9, 5, 3], 1000, 72)
    assert given[0] == 72
    assert sum(given) == 13 * 72
    with pytest.raises(UserError, match="3 runs want a fast domain"):
        whole_domains([1, 1, 1], 16, 8)
