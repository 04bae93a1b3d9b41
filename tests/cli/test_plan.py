"""`harness plan`: what it says of a sweep, elsewhere and here, and that it spends nothing."""

import dataclasses
import io
import json
import math
from typing import Any

import pytest
from rich.console import Console

from harness import cli
from harness.cli import make_plan
from harness.cli.views.plan import plan_sections
from harness.compare.results.to_json import to_json
from harness.compare.stats.multiple_testing import smallest_p
from harness.compare.stats.power import plan_power, seeds_needed
from harness.config.compose import compose, sweep_configs
from harness.config.schema.cluster import MeshConfig
from harness.config.schema.run import Remat, ScheduleConfig
from harness.core.interval import Interval
from harness.launcher import sweep
from harness.launcher.cost.device_room import run_bytes
from harness.launcher.placement.forecast import RunEstimator, forecast
from harness.launcher.runs import Run, make_blocks, run_dir, sweep_dir
from harness.launcher.stages.summary import DesignPower
from harness.plan import Layout, decoder_shape, load_cluster, predict, shape_from_facts
from harness.plan.allocation.allocated_run import LayoutFinder
from harness.plan.allocation.reliability import RecoveryOption, daly_interval
from harness.plan.allocation.share_chips import _assign_largest_first
from harness.plan.plan_cluster import plan_on_cluster
from harness.plan.plan_local import plan_on_this_machine
from harness.records.run.provenance import Facts, SourceFacts
from harness.report.tables.plan_sections import print_sections
from tests.launcher import support
from tests.plan.requested import RequestedRun
from tests.schemas.valid import check_output

KEYS = {
    "name", "parameters", "active_parameters", "flops_per_token", "tokens", "devices", "layout", "memory",
    "step_seconds", "mfu", "days", "evidence",
}  # fmt: skip
PAIR = ["experiment=colossus2", "roster=frontier", "member=1t_a,1t_b"]


def facts_of(config) -> Facts:
    """As described, of a dense decoder a fiftieth of the size."""
    shape = decoder_shape(
        name="made up", layers=48, width=4096, heads=32, head_width=128, ffn=12_288, vocabulary=163_840,
        sequence=config.data.sequence_length, batch=config.scale.batch, tied=False,
    )  # fmt: skip
    names = ("layers", "width", "heads", "head_width", "ffn", "vocabulary")
    return dataclasses.replace(
        support.facts(config),
        state_bytes=16 * shape.parameters,
        parameters=shape.parameters,
        non_embedding=shape.parameters - shape.embedding,
        embedding=shape.embedding,
        shape={name: getattr(shape, name) for name in names},
        flops_per_token=shape.flops_per_token,
        paths={},
        active_parameters=shape.active_parameters,
        divisors={"fsdp": shape.width, "tensor": shape.heads, "context": shape.sequence},
    )


@pytest.fixture
def made_up(monkeypatch, tmp_path):
    """Facts without JAX, where nothing lies."""
    tools = sweep.LaunchHooks(describe=lambda configs: [facts_of(each) for each in configs])
    monkeypatch.setattr(make_plan, "LaunchHooks", lambda: tools)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def asked_for(count: int, **changed: Any) -> list[RequestedRun]:
    config = compose(["roster=frontier", "member=1t_a"])
    config.model.feedforward.name = "swiglu"
    facts = dataclasses.replace(facts_of(config), **changed)
    configs = [dataclasses.replace(config, seed=seed) for seed in range(count)]
    return [RequestedRun(f"1t/mha/seed{seed}", each, facts) for seed, each in enumerate(configs)]


def shown(sweep_plan, width: int = 110) -> str:
    output = io.StringIO()
    console = Console(width=width, force_terminal=False, file=output)
    print_sections(plan_sections(sweep_plan, ["One seed a scale."]), console)
    return output.getvalue()


def words_of(sweep_plan) -> str:
    """On one line."""
    return " ".join(shown(sweep_plan).split())


def test_what_is_composed_is_what_a_sweep_trains():
    configs = sweep_configs(["experiment=colossus2", "roster=frontier", "member=1t_b,6t"])
    assert configs == [compose([*PAIR[:2], f"member={name}"]) for name in ("1t_b", "6t")]


def test_json_has_what_predict_says_and_nothing_is_written(made_up, capsys):
    assert cli.main(["plan", *PAIR, "cluster=h100_16k", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [*made_up.iterdir()] == []
    assert said.keys() == {"schema", "runs", "cluster", "power", "bets", "page"}
    assert said["bets"] is None
    one, two = said["runs"]
    assert one.keys() >= KEYS
    assert (one["name"], two["name"]) == ("1t/mha/seed0", "1t/delta_hybrid/seed0")
    assert (one["layout"], one["chips"]) == (two["layout"], two["chips"])
    config = compose([*PAIR[:2], "member=1t_a"])
    layout = Layout(**one["layout"] | {"remat": Remat(one["layout"]["remat"])})
    found = predict(shape_from_facts(config, facts_of(config)), "h100_16k", layout)
    assert one["devices"] == found.devices
    for key in ("value", "low", "high"):
        assert one["step_seconds"][key] == pytest.approx(getattr(found.step_seconds, key))
    best = max(way["goodput"] for way in one["recovery"])
    assert one["days"]["value"] == pytest.approx(found.days.value / best)
    assert sum(each["value"] for each in one["memory"].values()) <= one["memory_limit"]
    assert one["evidence"]["parameters"] == "closed form"
    assert one["evidence"]["days"] == "assumed"
    assert said["power"]["design"] is None
    assert said["cluster"]["meter"]["runs"] <= said["cluster"]["meter"]["machine"]


def test_a_run_that_fits_nowhere_keeps_its_counts_and_its_own_name():
    small, large = asked_for(1)[0], asked_for(2)[1]
    large.facts = dataclasses.replace(large.facts, parameters=10**15, state_bytes=16 * 10**15)
    third = RequestedRun("1t/mha/seed2", dataclasses.replace(large.config, seed=2), large.facts)
    sweep_plan = plan_on_cluster([small, large, third], compose(["cluster=h100_16k"]).cluster)
    fits, *refused = sweep_plan.runs
    assert fits.devices > 0
    assert fits.verdict == ""
    for run in refused:
        assert (run.devices, run.days, run.parameters) == (0, None, 10**15)
        assert run.verdict.startswith(f"{run.name} fits nowhere")
        assert run.evidence.keys() == {"parameters", "active_parameters", "flops_per_token"}
    assert "none fits" in shown(sweep_plan)
    json.dumps(to_json(sweep_plan), allow_nan=False)


def test_what_is_remembered_of_one_run_names_the_other():
    huge = asked_for(2, parameters=10**15, state_bytes=16 * 10**15)
    one, two = (shape_from_facts(run.config, run.facts, run.name) for run in huge)
    find = LayoutFinder(load_cluster("h100x8"))
    refused = [find([model], load_cluster("h100x8").partition(), 8)[0].refusal for model in (one, two)]
    assert len(find.cache) == 1
    assert [text.partition(" ")[0] for text in refused] == ["1t/mha/seed0", "1t/mha/seed1"]


def test_what_mixing_costs_and_what_the_site_cannot_feed_is_said():
    sweep_plan = plan_on_cluster(asked_for(4), compose(["cluster=colossus1"]).cluster)
    machine = sweep_plan.cluster
    assert machine.mixed.days
    assert machine.mixed.days_apart
    assert machine.mixed.won_back == pytest.approx(machine.mixed.days / machine.mixed.days_apart)
    assert machine.days.value == machine.mixed.days_apart == max(run.days.value for run in sweep_plan.runs)
    watts = {part.name: part.watts * 1.25 for part in load_cluster("colossus1").partitions}
    assert machine.meter.runs == pytest.approx(
        sum(run.chips * watts[run.kind] for run in sweep_plan.runs) / 1e6
    )
    assert {share.kind: share.given for share in machine.shares} == {
        kind: sum(run.chips for run in sweep_plan.runs if run.kind == kind) for kind in watts
    }
    text = words_of(sweep_plan)
    assert "With one kind for each run they take" in text
    assert (not machine.meter.possible) == ("All runs at once need" in text)
    assert machine.meter
    starved = dataclasses.replace(
        sweep_plan,
        cluster=dataclasses.replace(
            machine, meter=dataclasses.replace(machine.meter, site=1.0, possible=False)
        ),
    )
    assert "at full load, and the site has 1.00 MW: enough for" in words_of(starved)


def test_saves_are_dalys_of_the_runs_own_interruptions():
    (run,) = plan_on_cluster(asked_for(1), compose(["cluster=h100_16k"]).cluster).runs
    assert run.mtbf_hours
    assert run.mtbf_hours == pytest.approx(5.8 * 8766 / run.devices)
    assert run.interruptions == pytest.approx(run.days.value * 24 / run.mtbf_hours)
    for way in run.recovery:
        assert isinstance(way, RecoveryOption)
        assert way.save_minutes_young
        save = (way.save_minutes_young / 60) ** 2 / (2 * run.mtbf_hours)
        assert way.save_minutes == pytest.approx(60 * daly_interval(save, run.mtbf_hours))


@pytest.mark.parametrize("width", [80, 130])
def test_the_terminal_has_every_run_and_every_section(width):
    text = shown(plan_on_cluster(asked_for(2), compose(["cluster=h100_16k"]).cluster), width)
    for title in (
        "Models",
        "Predicted step time and duration",
        "Memory",
        "Layouts",
        "Failures",
        "Machine",
        "Evidence",
    ):
        assert f"\n{title}" in text
    assert text.count("1t/mha x2") >= 4
    assert all(len(line) <= width for line in text.splitlines())


def test_here_the_times_are_those_that_a_sweep_says(tmp_path):
    configs = support.configs(tmp_path)
    for each in configs:
        each.mesh, each.scale.batch = MeshConfig(data=2), 8
        each.schedule = ScheduleConfig("wsd", branches=[0.5], cooldown=0.4)
    runs = [Run(each, support.facts(each), run_dir(sweep_dir(configs), each)) for each in configs]
    outlook = forecast(make_blocks(runs), configs[0].engine, 2, RunEstimator([]))
    sweep_plan = plan_on_this_machine(
        runs,
        outlook.estimates,
        dict.fromkeys(outlook.estimates, 0.0),
        makespan=Interval(outlook.schedule.makespan, outlook.low, outlook.high),
        devices=2,
        utilisation=outlook.schedule.utilisation,
    )
    for run, planned in zip(runs, sweep_plan.runs, strict=True):
        took = outlook.estimates[run.name]
        assert planned.name == run.name
        assert planned.days.value * 86_400 == pytest.approx(took.seconds)
        assert planned.step_seconds.value * 1.2 * run.facts.steps == pytest.approx(took.train), (
            "with its branch"
        )
        held = sum(part.value for part in planned.memory.values())
        assert held == pytest.approx(run_bytes(run))
        assert (planned.devices, planned.layout.microbatch) == (2, 4)
        assert planned.evidence["step_seconds"] == "assumed", "nothing was measured"
    assert sweep_plan.cluster.days.high * 86_400 == pytest.approx(outlook.high)
    assert "seconds [low, high]" in shown(sweep_plan)


def test_the_verb_plans_this_machine_where_none_is_named(made_up, capsys, monkeypatch):
    monkeypatch.setenv("AB_HARNESS_CACHE", str(made_up / "cache"))
    assert cli.main(["plan", "variant=mha,short", "seed=0,1", "--json"]) == 0
    said = check_output(capsys.readouterr().out, "plan")
    names = [run["name"] for run in said["runs"]]
    assert names == [f"xs/{variant}/seed{seed}" for variant in ("mha", "short") for seed in (0, 1)]
    assert said["power"]["design"]["rungs"][0]["detectable"] > 0
    assert said["cluster"]["name"] == "local"
    assert not (made_up / "runs").exists()


def test_the_data_are_said_and_forty_two_passes_over_them(made_up, capsys, monkeypatch):
    monkeypatch.setenv("AB_HARNESS_CACHE", str(made_up / "cache"))
    source = SourceFacts("", 2, 90, 1000, False, 0.05, "documents", [], {})

    def describe(configs):
        draws = {"own": 42_000 // configs[0].data.sequence_length}
        return [dataclasses.replace(facts_of(c), draws=draws, sources={"own": source}) for c in configs]

    tools = sweep.LaunchHooks(describe=describe)
    monkeypatch.setattr(make_plan, "LaunchHooks", lambda: tools)
    assert cli.main(["plan", "variant=mha,short", "seed=0"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Data data own: 2 files, 90 documents, 1k training tokens, read 42 times" in printed
    assert "own is read 42 times: it has 1k training tokens, and scale.tokens=" in printed


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["--jsno"], "unknown option --jsno"),
        (["cluster=colosus2"], "did you mean 'colossus2'"),
        (["cluster=h100x8", "cluster.kinds.h100.watts=null"], "cluster.kinds.h100.watts=null is needed"),
        (["roster=frontier", "member=1t_a"], "cluster.kinds is empty"),
    ],
)
def test_a_mistake_is_one_sentence(made_up, capsys, overrides, said):
    assert cli.main(["plan", *overrides]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_one_run_on_one_domain_has_all_of_it(made_up, capsys):
    assert cli.main(["plan", "cluster=h100x8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["chips"] == 8


@pytest.mark.parametrize("level", [0.05, 0.025, 0.01])
@pytest.mark.parametrize("scales", [1, 2, 3, 10])
def test_seeds_needed_are_the_fewest_that_can_reach_the_level(scales, level):
    found = next(n for n in range(2, 99) if smallest_p(n * scales) <= level)
    assert seeds_needed(scales, level) == found


@pytest.mark.parametrize(("seeds", "told"), [(2, 1), (3, 0)])
def test_seeds_are_asked_for_where_there_are_too_few(seeds, told):
    assert len(DesignPower((), plan_power({"xs": seeds, "s": 3}), seeds_needed=3).advice) == told
    assert len(DesignPower((), None, seeds_needed=3).advice) == 1
    assert DesignPower(()).advice == []


def test_many_blocks_get_kinds_without_trying_every_way():
    """Largest first is within 4/3 of what no way can beat (Graham 1969, for equal machines)."""
    amounts = [1 + math.sin(i) ** 2 for i in range(40)]
    kinds = _assign_largest_first([[amount] * 3 for amount in amounts])
    loads = [sum(a for a, k in zip(amounts, kinds, strict=True) if k == kind) for kind in range(3)]
    assert max(loads) <= 4 / 3 * sum(amounts) / 3
    assert _assign_largest_first([[1, 1 / 8], [1, 1 / 8], [8, 1]])[2] == 1, (
        "the largest went to the small kind"
    )


def test_more_runs_than_fast_domains_take_turns():
    """Within Graham's bound for lists of what any order could reach; no two at once on the same chips."""
    sweep_plan = plan_on_cluster(asked_for(27), compose(["cluster=h100x8"]).cluster)
    chips = {run.chips for run in sweep_plan.runs}
    assert len(chips) == 1
    slots = 8 // chips.pop()
    ends = [(run.begins, run.begins + run.days.value) for run in sweep_plan.runs]
    for moment, _ in ends:
        assert sum(begin <= moment < end * (1 - 1e-9) for begin, end in ends) <= slots
    ideal = sum(run.days.value for run in sweep_plan.runs) / slots
    longest = max(run.days.value for run in sweep_plan.runs)
    assert ideal <= sweep_plan.cluster.days.value * (1 + 1e-9) <= ideal + longest
    assert sweep_plan.cluster.days.value == pytest.approx(max(end for _, end in ends))
    assert sweep_plan.cluster.shares[0].given <= 8
    assert sweep_plan.cluster.utilisation <= 1 + 1e-9


def test_what_was_not_chosen_is_what_asking_for_it_says():
    """The runners-up are slower, what would be faster does not fit, and both as `predict` has them."""
    [run] = plan_on_cluster(asked_for(1), compose(["cluster=h100_16k"]).cluster).runs
    assert len(run.alternatives) >= 3
    model = shape_from_facts(asked_for(1)[0].config, asked_for(1)[0].facts)
    for one in run.alternatives:
        found = predict(model, load_cluster("h100_16k"), one.layout)
        assert one.step_seconds == pytest.approx(found.step_seconds.value)
        assert one.bytes == pytest.approx(sum(part.value for part in found.memory.values()))
        assert found.fits == (one.step_seconds >= run.step_seconds.value)
    sweep_plan = plan_on_cluster(asked_for(1), compose(["cluster=h100_16k"]).cluster)
    output = io.StringIO()
    console = Console(width=200, force_terminal=False, file=output)
    print_sections(plan_sections(sweep_plan, []), console, folded=True)
    assert all(one.why in output.getvalue() for one in run.alternatives)
