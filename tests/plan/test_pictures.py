"""Pictures of a plan: areas and bars are the plan's numbers, and the page shows what the terminal says."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import random
from types import SimpleNamespace

import altair as alt
import pytest
from rich.console import Console

from harness import cli
from harness.cli import make_plan
from harness.cli.make_plan import block_starts
from harness.cli.plan_report import page_content, write_plan
from harness.cli.views.plan import plan_sections
from harness.compare.results.to_json import to_json
from harness.core import atomic_files
from harness.launcher import sweep as launch
from harness.launcher.placement.forecast import RunEstimator, forecast
from harness.launcher.runs import Run, make_blocks, run_dir
from harness.plan.plan_types import PlannedMachine, PlannedRun, SweepPlan
from harness.plan.predict import EvidenceKind, PlanEstimate
from harness.records.paths import SweepDir
from harness.records.sweep.plan_file import ChipShare
from harness.report.charts.chip_shares import chip_boxes
from harness.report.charts.plan_charts import MAX_RUNS, plan_charts
from harness.report.charts.treemap import Box, squarify
from harness.report.frames.saved_plan import UNREADABLE, SavedPlan, read_plan, save_plan
from harness.report.page.plan_page import plan_section, write_plan_page
from harness.report.tables.plan_sections import print_sections
from tests.cli.test_plan import facts_of
from tests.launcher import support
from tests.report.conftest import HOSTILE, sweep_of
from tests.report.test_page import Reader

GIB = 2**30


def about(value: float, wide: float = 1.25) -> PlanEstimate:
    return PlanEstimate(value, value / wide, value * wide, EvidenceKind.analytic)


def run(name: str, kind: str, chips: int, devices: int, days: float | None, **changed) -> PlannedRun:
    """With memory by part where it can run."""
    parts = {"weights": PlanEstimate.exact(8 * GIB), "activations": about(40 * GIB), "logits": about(2 * GIB)}
    ends = about(days, 1.3) if days else None
    known = {"memory": parts, "memory_limit": 64.0 * GIB} if devices else {}
    planned = PlannedRun(
        name=name, parameters=10**12, active_parameters=10**11, flops_per_token=1e12, tokens=10**13,
        kind=kind, chips=chips, devices=devices, batch=8, chip_memory=80.0 * GIB, days=ends,
    )  # fmt: skip
    return dataclasses.replace(planned, **{**known, **changed})


RUNS = (
    run("10t/mha/seed0", "old", 60_000, 40_000, 30.0, verdict="only with spares"),
    run("1t/mha/seed0", "old", 39_000, 39_000, 12.0),
    run("1t/hybrid/seed0", "new", 50_000, 50_000, 11.0),
    run("6t/mha/seed0", "new", 9_000, 0, None, verdict="6t/mha/seed0 fits nowhere: give more devices."),
    run("image/adaptive/seed0", "new", 64, 64, 2.0),
)
KINDS = (
    ChipShare("old", "A100", 100_000, 99_000, ("10t/mha/seed0", "1t/mha/seed0")),
    ChipShare("new", "H100", 59_064, 59_064, ("1t/hybrid/seed0", "6t/mha/seed0", "image/adaptive/seed0")),
)


def plan_of(runs=RUNS, kinds=KINDS, name="mixed") -> SweepPlan:
    ends = [each.days for each in runs if each.days]
    chips = sum(kind.chips for kind in kinds)
    return SweepPlan(
        tuple(runs),
        PlannedMachine(name, chips, kinds, max(ends, key=lambda end: end.value, default=None), 0.5),
    )


def configs_of(sweep_plan: SweepPlan) -> list:
    return [
        SimpleNamespace(config=SimpleNamespace(variant=SimpleNamespace(name=each.name.split("/")[1])))
        for each in sweep_plan.runs
    ]


def kept(folder, sweep_plan: SweepPlan) -> SavedPlan:
    """Written beside a sweep and read again."""
    shown = page_content(
        ["experiment=trial"],
        sweep_plan,
        configs_of(sweep_plan),
        plan_sections(sweep_plan, ["One seed a scale."]),
    )
    save_plan(SweepDir(folder), to_json(sweep_plan) | {"power": None, "page": shown})
    plan = read_plan(SweepDir(folder))
    assert plan is not None
    return plan


def rows_of(chart: alt.LayerChart, kind: str) -> list[dict[str, str]]:
    content = chart.to_dict(validate=False)["data"]["values"]
    return [row for row in csv.DictReader(io.StringIO(content)) if row["kind"] == kind]


def apart(one: Box, two: Box) -> bool:
    slack = 1e-6
    return (
        one.right <= two.left + slack or two.right <= one.left + slack
        or one.bottom <= two.top + slack or two.bottom <= one.top + slack
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
def test_boxes_tile_the_whole_in_proportion(seed):
    chance = random.Random(seed)
    whole = Box(7, 3, chance.uniform(50, 900), chance.uniform(50, 900))
    amounts = [chance.paretovariate(0.6) for _ in range(chance.randrange(1, 40))]
    boxes = squarify(amounts, whole)
    for amount, box in zip(amounts, boxes, strict=True):
        assert box.area / whole.area == pytest.approx(amount / sum(amounts))
        assert box.left >= whole.left - 1e-6
        assert box.right <= whole.right + 1e-6
        assert box.top >= whole.top - 1e-6
        assert box.bottom <= whole.bottom + 1e-6
    assert all(apart(one, two) for one, two in itertools.combinations(boxes, 2))


def test_boxes_are_those_of_the_paper():
    """Figure 4 of Bruls, Huizing and van Wijk: 6, 6, 4, 3, 2, 2, 1 in 6 x 4, down to its last column."""
    boxes = squarify([6, 6, 4, 3, 2, 2, 1], Box(0, 0, 6, 4))
    found = [(box.left, box.top, box.width, box.height) for box in boxes[:5]]
    wanted = [
        (0, 0, 3, 2),
        (0, 2, 3, 2),
        (3, 0, 12 / 7, 7 / 3),
        (33 / 7, 0, 9 / 7, 7 / 3),
        (3, 7 / 3, 6 / 5, 5 / 3),
    ]
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(other)


def test_areas_are_the_chips_of_each_run_and_of_none(tmp_path):
    plan = kept(tmp_path, plan_of())
    pieces = [piece for piece in chip_boxes(plan) if piece.chips]
    a_chip = sum(piece.box.area for piece in pieces) / 159_064
    assert sum(piece.chips for piece in pieces) == 159_064
    for piece in pieces:
        assert piece.box.area == pytest.approx(piece.chips * a_chip)
    assert all(apart(one.box, two.box) for one, two in itertools.combinations(pieces, 2))
    told = {(piece.run.name if piece.run else "", piece.state): piece.chips for piece in pieces}
    assert told == {
        ("10t/mha", "in use"): 40_000, ("10t/mha", "given, not in use"): 20_000, ("1t/mha", "in use"): 39_000,
        ("", "given to no run"): 1_000, ("1t/hybrid", "in use"): 50_000,
        ("6t/mha", "given, not in use"): 9_000, ("image/adaptive", "in use"): 64,
    }  # fmt: skip
    right = max(piece.box.right for piece in pieces if piece.kind == "old")
    assert min(piece.box.left for piece in pieces if piece.kind == "new") > right, "each kind has its place"


def test_a_run_without_room_for_its_name_is_named_in_the_key(tmp_path):
    chart = plan_charts(kept(tmp_path, plan_of()))["plan_partition"]
    title = chart.to_dict()["title"]
    assert title["text"] == "158,064 of 159,064 chips of mixed given to 5 runs"
    assert "Too small for their names: 1: 6t/mha 9,000; image/adaptive 64." in title["subtitle"]
    inside = [row["label"] for kind in ("name", "faint name") for row in rows_of(chart, kind)]
    assert inside == ["10t/mha", "60,000", "1t/mha", "39,000", "1t/hybrid", "50,000", "1"]
    assert [row["label"] for row in rows_of(chart, "head")] == ["old", "100,000 A100", "new", "59,064 H100"]


def test_runs_that_take_turns_never_have_more_chips_than_there_are(tmp_path):
    turns = [run(f"s/mha/seed{i}", "old", 2, 2, 1.0, begins=float(i // 4)) for i in range(10)]
    turns.append(run("s/hybrid/seed0", "old", 2, 0, None, verdict="it fits nowhere"))
    plan = kept(tmp_path, plan_of(turns, (ChipShare("old", "A100", 9, 8, ()),)))
    assert sorted(piece.chips for piece in chip_boxes(plan) if piece.chips) == [1, 2, 2, 2, 2]
    made = plan_charts(plan)
    title = made["plan_partition"].to_dict()["title"]["text"]
    assert title == "8 of 9 chips of mixed given to 4 runs at first; 7 more take turns on them"
    bars = {row["label"]: row for row in rows_of(made["plan_timeline"], "run")}
    assert [float(bars["s/mha/seed9"][end]) for end in ("start", "end", "high")] == [2, 3, 3.3]
    held = {row["label"] for row in rows_of(made["plan_memory"], "whole")}
    assert held == {"s/mha x10", "s/hybrid"}, "those that are alike are one bar, as in the tables"


def test_bars_of_memory_are_the_parts_and_the_limits_of_each_run(tmp_path):
    chart = plan_charts(kept(tmp_path, plan_of()))["plan_memory"]
    parts = {(row["label"], row["phase"]): float(row["value"]) for row in rows_of(chart, "part")}
    for name in ("10t/mha", "1t/mha", "1t/hybrid", "image/adaptive"):
        assert [parts[name, part] for part in ("weights", "activations", "logits")] == [8, 40, 2]
    whole = {row["label"]: row for row in rows_of(chart, "whole")}
    assert [float(whole["1t/mha"][end]) for end in ("value", "low", "high")] == [50, 41.6, 60.5]
    assert (whole["1t/mha"]["text"], whole["6t/mha"]["text"]) == ("50.0", "none fits")
    assert {row["label"]: float(row["value"]) for row in rows_of(chart, "limit")} == dict.fromkeys(
        ("10t/mha", "1t/mha", "1t/hybrid", "image/adaptive"), 64.0
    )
    assert {float(row["value"]) for row in rows_of(chart, "chip")} == {80}
    assert "80% of the chip's memory" in chart.to_dict()["title"]["subtitle"][0]


def test_a_limit_far_beyond_all_bars_is_told_and_not_drawn(tmp_path):
    small = run("xs/mha/seed0", "old", 8, 8, 1.0, memory={"weights": PlanEstimate.exact(GIB / 256)})
    chart = plan_charts(kept(tmp_path, plan_of([small])))["plan_memory"]
    assert [float(row["value"]) for row in rows_of(chart, "part")] == [4], "MiB"
    assert not rows_of(chart, "limit")
    assert "64.0 GiB, lies far to the right" in chart.to_dict()["title"]["subtitle"][0]


def test_bars_of_time_are_the_days_of_each_run(tmp_path):
    chart = plan_charts(kept(tmp_path, plan_of()))["plan_timeline"]
    bars = {row["label"]: row for row in rows_of(chart, "run")}
    assert [*bars] == ["10t/mha", "1t/mha", "1t/hybrid", "6t/mha", "image/adaptive"]
    for each in RUNS:
        bar = bars[each.name.removesuffix("/seed0")]
        ends = [each.days.value, each.days.low, each.days.high] if each.days else [0, 0, 0]
        assert [float(bar[end]) for end in ("end", "low", "high")] == pytest.approx(ends, rel=1e-5)
        assert float(bar["start"]) == 0
    assert bars["10t/mha"]["text"] == "30.0 [23.1, 39.0] *"
    assert bars["6t/mha"]["text"] == "none fits"
    (last,) = rows_of(chart, "last")
    assert float(last["end"]) == 30
    title = chart.to_dict()["title"]
    assert title["text"] == "The last run that ends does so after 30.0 [23.1, 39.0] days"
    assert "* 10t/mha: only with spares." in title["subtitle"]
    assert "6t/mha/seed0 fits nowhere: give more devices." in title["subtitle"]


def test_specifications_are_valid(tmp_path):
    charts = plan_charts(kept(tmp_path, plan_of()))
    assert charts.keys() == {"plan_partition", "plan_memory", "plan_timeline"}
    for chart in charts.values():
        assert chart.to_dict(validate=True)["$schema"]  # raises where Vega-Lite's schema is broken


def test_of_many_runs_so_many_are_drawn_and_the_rest_counted(tmp_path):
    many = [run(f"s{i}/mha/seed0", "old", 2, 2, 1.0) for i in range(MAX_RUNS + 5)]
    made = plan_charts(kept(tmp_path, plan_of(many)))
    for name, kind in (("plan_memory", "whole"), ("plan_timeline", "run")):
        assert len(rows_of(made[name], kind)) == MAX_RUNS
        assert f"5 of {MAX_RUNS + 5} runs are not drawn." in made[name].to_dict()["title"]["subtitle"]
    assert len(rows_of(made["plan_partition"], "in use")) == MAX_RUNS + 5


def test_where_no_run_fits_the_page_shows_what_is_known(tmp_path):
    nowhere = [run("6t/mha/seed0", "old", 8, 0, None, verdict="6t/mha/seed0 fits nowhere: give more.")]
    plan = kept(tmp_path, plan_of(nowhere))
    assert [*plan_charts(plan)] == ["plan_partition"]
    text = Reader(write_plan_page(SweepDir(tmp_path), plan).read_text()).text("main")
    assert "fits nowhere: give more." in text
    assert "6t/mha 1T" in text


def test_the_page_says_all_that_the_terminal_says_and_fetches_nothing(tmp_path):
    sweep_plan = plan_of()
    content = write_plan_page(SweepDir(tmp_path), kept(tmp_path, sweep_plan)).read_text()
    reader = Reader(content)
    output = io.StringIO()
    console = Console(width=400, force_terminal=False, file=output)
    print_sections(plan_sections(sweep_plan, ["One seed a scale."]), console)
    shown = " ".join(reader.text("main").split())
    for word in output.getvalue().split():
        assert word in shown
    assert "harness plan experiment=trial" in shown
    assert not [pair for pair in reader.attributes if pair[0] in {"src", "href", "srcset", "data", "action"}]
    assert not {"link", "img", "iframe", "object", "base"} & {*reader.tags}
    (policy,) = [value for _, value in reader.attributes if "default-src" in value]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "connect-src" not in policy
    assert len(content) < 1.5e6


def test_names_are_inert(tmp_path):
    sweep_plan = plan_of(
        [run(f"1t/{HOSTILE}/seed0", HOSTILE, 8, 8, 1.0)], (ChipShare(HOSTILE, "A100", 8, 8, ()),), HOSTILE
    )
    reader = Reader(write_plan_page(SweepDir(tmp_path), kept(tmp_path, sweep_plan)).read_text())
    assert "img" not in reader.tags
    assert reader.tags.count("script") == 3
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert HOSTILE in reader.text("h1")


@pytest.fixture
def trained(tmp_path) -> SweepDir:
    return sweep_of(tmp_path / "trial", ("mha", "hybrid"), seeds=(0,), scales={"xs": 10**7}, branches=())


def test_the_report_of_a_sweep_keeps_its_plan(trained, capsys):
    sweep_plan = plan_of([run("1t/hybrid/seed0", "old", 8, 8, 2.0), run("1t/mha/seed0", "old", 8, 8, 2.0)])
    shown = page_content([], sweep_plan, configs_of(sweep_plan), plan_sections(sweep_plan, []))
    write_plan(trained, to_json(sweep_plan) | {"power": None, "page": shown}, html=True, pictures=False)
    reader = Reader(trained.report.read_text())
    titles = reader.texts["h2"]
    assert "Fairness" in titles
    assert titles.index("Plan") < titles.index("Provenance")
    specs = json.loads(reader.texts["script"][0])["specs"]
    assert {"curves", "plan_partition", "plan_memory", "plan_timeline"} <= specs.keys()
    (bars,) = [layer for layer in specs["plan_timeline"]["layer"] if layer["mark"]["type"] == "bar"]
    assert bars["encoding"]["color"]["scale"]["domain"] == ["mha", "hybrid"], (
        "the control first, as elsewhere"
    )


@pytest.mark.parametrize(
    "spoil", [lambda text: text[:-20], lambda text: text.replace("39000", "39001"), lambda _: "{}"]
)
def test_a_plan_that_cannot_be_read_is_said_to_be_lost(tmp_path, spoil):
    sweep = SweepDir(tmp_path)
    kept(tmp_path, plan_of())
    sweep.plan.write_text(spoil(sweep.plan.read_text()))
    plan = read_plan(sweep)
    assert plan is not None
    assert UNREADABLE in plan_section(plan, set(plan_charts(plan)))


@pytest.fixture
def made_up(monkeypatch, tmp_path):
    """Facts without JAX, where nothing lies."""
    tools = launch.LaunchHooks(describe=lambda configs: [facts_of(each) for each in configs])
    monkeypatch.setattr(make_plan, "LaunchHooks", lambda: tools)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_verb_writes_plan_report_and_pictures_where_it_is_asked_to(made_up, capsys):
    assert cli.main(["plan", "cluster=h100x8", "--json", "--html", "--pictures"]) == 0
    out, told = capsys.readouterr()
    sweep = SweepDir(made_up / "runs" / "adhoc")
    written = {str(path.relative_to(sweep.path)) for path in sweep.path.rglob("*") if path.is_file()}
    names = [f"pictures/plan_{name}" for name in ("partition", "memory", "timeline")]
    assert written == {"plan.json", "report.html"} | {f"{n}.{end}" for n in names for end in ("png", "svg")}
    content = atomic_files.read_checksummed_json(sweep.plan)
    printed = json.loads(out)
    assert printed.pop("schema").startswith("plan/")
    assert content == printed
    assert all(name in told for name in names)
    assert "xs/mha" in (sweep.path / "pictures" / "plan_timeline.svg").read_text()


def test_where_nothing_can_be_written_the_plan_is_shown_all_the_same(made_up, capsys):
    (made_up / "taken").write_text("")
    assert cli.main(["plan", "cluster=h100x8", "runs=taken", "--html"]) == 2
    said = capsys.readouterr()
    assert "Predicted step time and duration" in said.out
    assert said.err.count("\n") == 1
    assert "Choose a writable folder with runs=..." in said.err


@pytest.mark.parametrize("devices", [0, 2], ids=["workers", "devices"])
def test_on_this_machine_a_block_begins_where_another_ends(tmp_path, devices):
    configs = support.configs(tmp_path, seeds=(0, 1))
    for each in configs:
        each.engine.devices = devices
    runs = [Run(each, support.facts(each), run_dir(SweepDir(tmp_path), each)) for each in configs]
    blocks = make_blocks(runs)
    plan = forecast(blocks, configs[0].engine, 1, RunEstimator([])).schedule
    begun = block_starts(blocks, plan)
    assert begun.keys() == {run.name for run in runs}
    told = sorted([begun[run.name] for run in block.runs] for block in blocks)
    assert told == [[0, 0], [pytest.approx(plan.makespan / 2)] * 2], "equal pairs, each together"
