"""Rosters: each member in each roster, what a pair differs in, and sizes that keep what their names say."""

from __future__ import annotations

import dataclasses
import functools
import math
import resource
import time

import pytest

from harness.config.compose import compose, config_groups
from harness.config.pair_check import undeclared_differences
from harness.config.run_identity import config_difference, identity
from harness.config.schema.run import Config, RosterConfig
from harness.core.errors import UserError
from harness.core.hashing import is_covered_by
from harness.launcher.runs import check_trainable, run_dir, sweep_dir
from harness.records.run.provenance import Facts
from harness.worker.describe import describe

MEMBERS = {
    "imagine_v2": ("imagine_v2", "adaptive_norm", None),
    "1t_a": ("1t", "mha", 1e12),
    "1t_b": ("1t", "delta_hybrid", 1e12),
    "1p5t_a": ("1p5t", "mha", 1.5e12),
    "1p5t_b": ("1p5t", "delta_hybrid", 1.5e12),
    "6t": ("6t", "mha", 6e12),
    "10t": ("10t", "mha", 1e13),
}
"""Scale, variant, and the parameters that the name promises."""
ROSTERS = {"replica": 1e-6, "frontier": 1.0}
SIZED = [member for member, (*_, promised) in MEMBERS.items() if promised]


@functools.cache
def made(member: str, roster: str = "replica") -> Config:
    return compose(["experiment=colossus2", f"member={member}", f"roster={roster}"])


@functools.cache
def described(member: str, roster: str) -> Facts:
    return describe(made(member, roster))


def test_the_group_has_seven_members():
    assert config_groups()["member"] == sorted(MEMBERS)
    assert config_groups()["roster"] == sorted(ROSTERS)


@pytest.mark.parametrize("roster", ROSTERS)
@pytest.mark.parametrize("member", MEMBERS)
def test_a_member_is_a_scale_and_a_variant(member, roster):
    config = made(member, roster)
    assert (config.scale.name, config.variant.name) == MEMBERS[member][:2]
    assert (config.roster.name, config.roster.planned) == (roster, roster == "frontier")
    assert (config.model.kind == "dit") == (member == "imagine_v2")
    assert (config.experiment_name, config.rule.control) == ("colossus2", "mha")


@pytest.mark.parametrize("roster", ROSTERS)
@pytest.mark.parametrize("scale", ["1t", "1p5t"])
def test_a_and_b_differ_in_attention_alone(scale, roster):
    one, other = made(f"{scale}_a", roster), made(f"{scale}_b", roster)
    assert undeclared_differences(one, other) == {}
    found = config_difference(one, other)
    assert all(is_covered_by(key, ["variant", "model.attention"]) for key in found)
    assert "model.attention.name" in found


def test_every_run_has_a_place_and_an_identity_of_its_own():
    configs = [made(member) for member in MEMBERS]
    sweep = sweep_dir(configs)
    assert len({run_dir(sweep, config).path for config in configs}) == 7
    assert len({identity(config) for config in configs}) == 7


def test_the_roster_is_no_part_of_what_a_run_is():
    config = made("1t_a")
    assert identity(dataclasses.replace(config, roster=RosterConfig())) == identity(config)
    by_hand = compose(
        ["experiment=colossus2", "scale=replica/1t", "model.base_width=32", "evaluation.points=4"]
    )
    assert identity(by_hand) == identity(config)


@pytest.mark.parametrize("roster", ROSTERS)
@pytest.mark.parametrize("member", SIZED)
def test_sizes_are_those_of_the_names(member, roster):
    """The replica's names count what is no embedding, those of the real models everything."""
    facts, promised = described(member, roster), MEMBERS[member][2] * ROSTERS[roster]
    declared = sum(_size(shape) for shape in facts.paths.values())
    assert declared == facts.parameters
    said = facts.non_embedding if roster == "replica" else declared
    assert abs(said - promised) < 0.01 * promised


def test_the_image_model_is_small():
    assert 3e5 <= described("imagine_v2", "replica").non_embedding <= 5e5
    assert described("imagine_v2", "frontier").active_parameters == pytest.approx(2e10, rel=0.03)


@pytest.mark.parametrize("member", SIZED)
def test_planned_models_use_a_share_of_their_experts_and_read_enough(member):
    facts, config = described(member, "frontier"), made(member, "frontier")
    assert 0.05 < facts.active_parameters / facts.parameters < 0.10
    control = described(member.replace("_b", "_a"), "frontier")
    assert config.scale.tokens == min(36e12, 1e12 * round(400 * control.active_parameters / 1e12))
    assert config.scale.batch * config.data.sequence_length == 2**26


def test_describing_ten_trillion_parameters_takes_no_room():
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    facts = describe(made("10t", "frontier"))
    assert time.process_time() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000, "kilobytes"
    assert facts.state_bytes == pytest.approx(16 * facts.parameters, rel=1e-3)
    assert facts.data_fingerprint == "planned"


def test_what_is_planned_is_not_trained():
    with pytest.raises(UserError, match="roster=frontier can be planned, but not trained"):
        check_trainable([made("6t"), made("6t", "frontier")])
    check_trainable([made("6t"), made("imagine_v2")])


def test_a_machine_of_several_kinds_trains_nothing():
    with pytest.raises(UserError, match="cluster=colossus1 has 3 kinds of chips, and a sweep trains on one"):
        check_trainable([compose(["cluster=colossus1"])])
    check_trainable([compose(["cluster=h100x8"])])


def test_a_member_without_a_roster_is_told_what_it_lacks():
    with pytest.raises(UserError, match=r"roster=.*'1t'.*roster=replica"):
        compose(["member=1t_a"])


def test_a_user_adds_a_member_in_one_file(tmp_path):
    from harness.config.compose import run_hydra

    (tmp_path / "member").mkdir()
    (tmp_path / "member" / "1t_c.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /scale: ${roster}/1t\n  - override /variant: gqa\n"
    )
    taken: list[Config] = []
    run_hydra(
        [f"hydra.searchpath=[file://{tmp_path}]", "hydra.mode=RUN", "experiment=colossus2", "member=1t_c"],
        taken.append,
    )
    assert taken[0].model.attention.name == "gqa"
    assert undeclared_differences(made("1t_a"), taken[0]) == {}


def test_the_evidence_asks_what_the_pairs_ask():
    """Same variants, data, tokens, learning rate and batch; only the size is another."""
    other = made("1t_b")
    for scale in ("30k", "250k"):
        small = compose(["experiment=colossus2_evidence", f"scale=evidence/{scale}", "variant=delta_hybrid"])
        found = config_difference(small, other)
        nodes = ["experiment_name", "scale.name", "scale.parameters", "roster", "engine", "rule"]
        assert all(is_covered_by(key, nodes) for key in found), found


def _size(shape: list[int]) -> int:
    return math.prod(shape)
