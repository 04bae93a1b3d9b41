"""Blocks, placement, rule and directories: what a launch decides before a worker starts."""

from __future__ import annotations

import dataclasses
import io
import json

import pytest
from rich.console import Console

from harness.cli.conclude import conclude
from harness.config.schema.cluster import MeshConfig
from harness.config.schema.data import SourceConfig
from harness.config.schema.decision import RuleConfig
from harness.config.schema.run import Config
from harness.config.schema.run_schedule import EvaluationSetConfig
from harness.core.errors import UserError
from harness.core.number_format import format_si
from harness.launcher.placement import frozen
from harness.launcher.placement.forecast import Forecast, RunEstimator, forecast, with_meshes
from harness.launcher.run_directories import RunAction, prepare, set_state
from harness.launcher.runs import Run, check_distinct, make_blocks, run_dir, sweep_dir
from harness.launcher.stages import freeze_rule
from harness.launcher.stages.summary import plan_lines
from harness.launcher.workers.worker_specs import max_workers
from harness.records.paths import SweepDir
from harness.records.run import metrics
from harness.records.run.config_file import read_config
from harness.records.run.provenance import read_provenance, write_provenance
from harness.records.run.status import State, Status, read_status, write_status
from harness.records.sweep import ledger
from tests.compare.synthetic import Recipe, write_sweep
from tests.launcher.support import config, configs, facts, train


def runs_of(made) -> list[Run]:
    return [Run(each, facts(each), run_dir(sweep_dir(made), each)) for each in made]


def outlook_of(runs: list[Run]) -> Forecast:
    return forecast(make_blocks(runs), runs[0].config.engine, 2, RunEstimator([]))


def launched(tmp_path, **settings) -> Run:
    """The first run of a sweep that was trained."""
    made = configs(tmp_path, seeds=(0,), **settings)
    train(made)
    return runs_of(made)[0]


class TestBlocks:
    def test_lanes_alternate_over_seeds(self, tmp_path):
        blocks = make_blocks(runs_of(configs(tmp_path, variants=("a", "b", "c"), seeds=(0, 1, 2, 3))))
        assert ["".join(run.variant for run in block.runs) for block in blocks] == [
            "abc",
            "bca",
            "cab",
            "abc",
        ]

    def test_a_difference_that_no_variant_declares_is_refused_and_named(self, tmp_path):
        made = configs(tmp_path, seeds=(0,))
        made[1].optimizer.weight_decay = 0.2
        with pytest.raises(UserError, match=r"optimizer.weight_decay \(0.1 against 0.2\)"):
            make_blocks(runs_of(made))
        made[1].variant.touches.append("optimizer.weight_decay")
        make_blocks(runs_of(made))

    def test_another_mesh_in_a_block_is_a_difference(self, tmp_path):
        made = configs(tmp_path, seeds=(0,))
        made[1].mesh = MeshConfig(data=2)
        with pytest.raises(UserError, match=r"mesh\.data"):
            make_blocks(runs_of(made))

    def test_other_data_behind_an_equal_config_is_refused(self, tmp_path):
        one, other = runs_of(configs(tmp_path, seeds=(0,)))
        changed = dataclasses.replace(other, facts=dataclasses.replace(other.facts, data_fingerprint="x"))
        with pytest.raises(UserError, match="data_fingerprint"):
            make_blocks([one, changed])

    def test_a_repeated_run_is_refused(self, tmp_path):
        made = configs(tmp_path, seeds=(0, 0))
        with pytest.raises(UserError, match="appears twice"):
            check_distinct(sweep_dir(made), made)

    def test_two_runs_of_one_directory_are_refused_with_their_difference(self, tmp_path):
        made = [config(tmp_path), config(tmp_path)]
        made[1].optimizer.learning_rate = 0.5
        with pytest.raises(UserError, match=r"optimizer.learning_rate \(0.001 against 0.5\)"):
            check_distinct(sweep_dir(made), made)

    def test_a_name_that_is_no_folder_is_refused(self, tmp_path):
        with pytest.raises(UserError, match=r"variant\.name=a/b"):
            run_dir(SweepDir(tmp_path), config(tmp_path, variant="a/b"))


class TestPlacement:
    def test_the_first_launch_freezes_the_mesh(self, tmp_path):
        run = launched(tmp_path)
        moved = dataclasses.replace(run, config=dataclasses.replace(run.config, mesh=MeshConfig(data=2)))
        places = frozen.freeze_places(SweepDir(tmp_path / "trial"), make_blocks([moved]))
        assert frozen.on_frozen_mesh(moved, places).config.mesh == MeshConfig()
        assert frozen.runs_on_other_mesh([moved], places) == [moved]

    def test_a_replan_starts_unfinished_blocks_over_on_the_new_mesh(self, tmp_path):
        train(configs(tmp_path))
        made = configs(tmp_path)
        set_state(runs_of(made)[0].dir, State.preempted, "")
        for each in made:
            each.mesh, each.resume.replan = MeshConfig(data=2), True
        train(made)
        meshes = {run.name: read_config(run.dir.config).mesh.data for run in runs_of(made)}
        assert meshes == {"xs/mha/seed0": 2, "xs/short/seed0": 2, "xs/mha/seed1": 1, "xs/short/seed1": 1}
        assert all(read_status(run.dir).state is State.finished for run in runs_of(made))

    def test_without_a_replan_another_mesh_changes_nothing(self, tmp_path):
        train(configs(tmp_path, seeds=(0,)))
        made = configs(tmp_path, seeds=(0,))
        set_state(runs_of(made)[0].dir, State.preempted, "")
        for each in made:
            each.mesh = MeshConfig(data=2)
        train(made)
        assert {read_config(run.dir.config).mesh.data for run in runs_of(made)} == {1}

    def test_a_later_seed_is_an_amendment(self, tmp_path):
        launched(tmp_path)
        train(configs(tmp_path, seeds=(0, 1)))
        amendments = ledger.read(SweepDir(tmp_path / "trial"), "amendment")
        assert [entry["content"]["detail"] for entry in amendments] == [
            "added after the first launch: seed seed1"
        ]

    def test_longest_blocks_come_first(self, tmp_path):
        runs = runs_of(configs(tmp_path, scales=("s", "m"), seeds=(0,)))
        costs = {"s": 1.0, "m": 5.0}
        runs = [
            dataclasses.replace(
                run,
                facts=dataclasses.replace(run.facts, executed_flops_per_token=costs[run.config.scale.name]),
            )
            for run in runs
        ]
        assert [block.name for block in with_meshes(make_blocks(runs), outlook_of(runs))] == [
            "m/seed0",
            "s/seed0",
        ]

    def test_workers_are_limited_by_memory(self, tmp_path, monkeypatch):
        blocks = make_blocks(runs_of(configs(tmp_path)))
        monkeypatch.setattr("harness.launcher.placement.core_shares.free_memory", lambda: 1e9)
        assert max_workers(config(tmp_path, workers=0).engine, blocks) == 1
        assert max_workers(config(tmp_path, workers=5).engine, blocks) == 5


def ruled(**changes) -> Config:
    return Config(rule=RuleConfig("h", "mha", **changes))


def with_sets(made: list[Config], *names: str) -> list[Config]:
    """Configs of two sources and of validation sets."""
    for each in made:
        each.data.sources = {name: SourceConfig(f"{name}.txt") for name in "ab"}
        each.evaluation.sets = {name: EvaluationSetConfig(f"{name}.txt") for name in names}
    return made


class TestRule:
    def test_it_is_fixed_once_and_a_later_one_is_a_deviation(self, tmp_path):
        sweep = SweepDir(tmp_path)
        assert freeze_rule.write_rule(sweep, ruled(), ["mha", "short"]) is None
        before = sweep.rule.read_bytes()
        assert freeze_rule.write_rule(sweep, ruled(), ["mha", "short"]) is None
        said = freeze_rule.write_rule(sweep, ruled(margin=0.5), ["mha", "short"])
        assert said is not None
        assert "rule.margin: 0.01 became 0.5" in said
        assert sweep.rule.read_bytes() == before
        assert freeze_rule.write_rule(sweep, ruled(margin=0.5), ["mha", "short"]) is None, "recorded twice"
        assert len(ledger.read(sweep, "amendment")) == 1

    def test_an_edited_rule_is_noticed(self, tmp_path):
        sweep = SweepDir(tmp_path)
        freeze_rule.write_rule(sweep, ruled(), ["mha", "short"])
        sweep.rule.write_text(sweep.rule.read_text().replace("0.01", "0.1"))
        assert "was changed" in str(freeze_rule.write_rule(sweep, ruled(), ["mha", "short"]))

    def test_the_first_variant_is_the_control_where_none_is_named(self, tmp_path):
        made = configs(tmp_path, variants=("b", "a"))
        for each in made:
            each.rule.control = ""
        freeze_rule.set_default_control(made)
        assert {each.rule.control for each in made} == {"b"}

    def test_with_validation_sets_the_sources_of_the_control_decide(self, tmp_path):
        sweep, made = SweepDir(tmp_path / "sweep"), with_sets(configs(tmp_path), "new")
        made[-1].data.sources.pop("b")
        freeze_rule.set_default_domains(sweep, made)
        assert {tuple(each.rule.domains) for each in made} == {("a", "b")}
        freeze_rule.write_rule(sweep, made[0], ["mha", "short"])
        later = with_sets(configs(tmp_path, variants=("short",)), "new")
        later[0].data.sources["c"] = SourceConfig("c.txt")
        freeze_rule.set_default_domains(sweep, later)
        assert freeze_rule.write_rule(sweep, later[0], ["short"]) is None, "a deviation"

    def test_without_sets_all_domains_decide_as_before(self, tmp_path):
        made = with_sets(configs(tmp_path))
        freeze_rule.set_default_domains(SweepDir(tmp_path), made)
        assert {tuple(each.rule.domains) for each in made} == {()}

    def test_a_rule_may_name_a_set_and_no_other_name(self, tmp_path):
        made = with_sets(configs(tmp_path), "new")
        for each in made:
            each.rule.domains = ["new"]
        freeze_rule.set_default_domains(SweepDir(tmp_path), made)
        assert made[0].rule.domains == ["new"]
        made[0].rule.domains = ["mew"]
        with pytest.raises(UserError, match=r"rule.domains=\['mew'\]: .*did you mean 'new'"):
            freeze_rule.set_default_domains(SweepDir(tmp_path), made)

    def test_variants_without_their_control_are_refused(self, tmp_path):
        made = configs(tmp_path, variants=("short", "hybrid"))
        with pytest.raises(UserError, match=r"rule.control=mha: not among the variants"):
            freeze_rule.check_control(SweepDir(tmp_path), made)
        freeze_rule.check_control(SweepDir(tmp_path), made[:2])


class TestDirectories:
    def test_another_identity_is_refused_with_the_difference(self, tmp_path):
        launched(tmp_path)
        made = configs(tmp_path, seeds=(0,))
        for each in made:
            each.optimizer.b1 = 0.8
        with pytest.raises(UserError, match=r"optimizer.b1 \(0.9 against 0.8\).*experiment_name"):
            train(made)

    @pytest.mark.parametrize("change", [{"stall_seconds": 9.0}, {"workers": 1}])
    def test_how_it_is_run_is_no_identity(self, tmp_path, change):
        run = launched(tmp_path)
        before = read_status(run.dir)
        assert [each.state for each in train(configs(tmp_path, seeds=(0,), **change))] == ["finished"] * 2
        assert read_status(run.dir) == before, "nothing was trained again"

    def test_a_flipped_bit_in_a_finished_run_is_named_and_trained_again(self, tmp_path):
        run = launched(tmp_path)
        part = metrics.list_parts(run.dir, "steps")[1].path
        content = bytearray(part.read_bytes())
        content[len(content) // 2] ^= 4
        part.write_bytes(content)
        said: list[str] = []
        sweep = SweepDir(tmp_path / "trial")
        assert prepare(sweep, run, said.append) is RunAction.train
        assert str(part) in said[0]
        train(configs(tmp_path, seeds=(0,)))
        assert metrics.complete_until(run.dir) == (20, [])
        assert read_status(run.dir).state.value == "finished"

    def test_an_unfinished_run_under_new_code_starts_over(self, tmp_path):
        run, sweep = self._interrupted(tmp_path)
        said: list[str] = []
        assert prepare(sweep, run, said.append) is RunAction.train
        assert "the code changed" in said[0]
        assert not [*run.dir.metrics.glob("*")]
        assert ledger.read(sweep, "restart")
        record = read_provenance(run.dir)
        assert record is not None
        assert record.code_hash != "old"

    def test_drift_that_is_allowed_is_recorded(self, tmp_path):
        run, sweep = self._interrupted(tmp_path)
        run.config.resume.allow_drift = True
        prepare(sweep, run, lambda _: None)
        record = read_provenance(run.dir)
        assert record is not None
        assert record.code_hash.startswith("old@12+")
        assert [*run.dir.metrics.glob("*")]
        said: list[str] = []
        prepare(sweep, run, said.append)
        assert said == [], "the same drift was recorded twice"

    def test_a_finished_run_stands_under_new_code(self, tmp_path):
        run = launched(tmp_path)
        record = read_provenance(run.dir)
        assert record is not None
        write_provenance(run.dir, dataclasses.replace(record, code_hash="old"))
        assert prepare(SweepDir(tmp_path / "trial"), run, print) is RunAction.skip

    @pytest.mark.parametrize("name", ["config.yaml", "status.json"])
    def test_a_damaged_small_file_is_mended(self, tmp_path, name):
        run = launched(tmp_path)
        (run.dir.path / name).write_bytes(b"\xff\x00{")
        train(configs(tmp_path, seeds=(0,)))
        assert read_status(run.dir).state.value == "finished"

    def test_a_damaged_run_json_starts_from_nothing_and_says_so(self, tmp_path):
        run = launched(tmp_path)
        run.dir.run.write_text("{")
        said: list[str] = []
        assert prepare(SweepDir(tmp_path / "trial"), run, said.append) is RunAction.train
        assert "run.json" in said[0]

    def _interrupted(self, tmp_path) -> tuple[Run, SweepDir]:
        run = launched(tmp_path)
        record = read_provenance(run.dir)
        assert record is not None
        write_provenance(run.dir, dataclasses.replace(record, code_hash="old"))
        write_status(run.dir, Status(step=12, steps=20))
        return run, SweepDir(tmp_path / "trial")


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path, monkeypatch):
    import errno

    from harness.core import atomic_files

    real, count = atomic_files.write_bytes, [0]

    def full(path, content, **options):
        count[0] += 1
        if count[0] == 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, content, **options)

    monkeypatch.setattr(atomic_files, "write_bytes", full)
    with pytest.raises(UserError, match="the disk is full"):
        train(configs(tmp_path, seeds=(0,)))
    monkeypatch.undo()
    assert [o.state for o in train(configs(tmp_path, seeds=(0,)))] == ["finished", "finished"]


def test_the_plan_says_what_is_multiplied(tmp_path):
    runs = runs_of(configs(tmp_path, scales=("xs", "s")))
    text = "\n".join(plan_lines(SweepDir(tmp_path / "trial"), runs, outlook_of(runs)))
    assert "8 runs; 2 scales x 2 variants x 2 seeds" in text
    assert "mha (control)" in text


def test_numbers_are_short():
    assert [format_si(n) for n in (7, 1234, 1.5e6, 2e13)] == ["7", "1.23 k", "1.5 M", "20 T"]


def test_lines_are_printed_where_the_output_is_no_terminal(tmp_path):
    console = Console(record=True, force_terminal=False, width=200)
    train(configs(tmp_path, seeds=(0,)), console)
    text = console.export_text()
    assert "xs/mha/seed0: finished at step 20, loss 0.25" in text
    assert "[2/2]" in text


def test_the_noise_of_a_null_sweep_is_kept_for_sweeps_beside_it(tmp_path):
    recipe = Recipe("null", variants={"mha": 1.0}, seeds=(0, 1, 2, 3), null_orders=2)
    sweep = write_sweep(tmp_path / "null", recipe)
    output = io.StringIO()
    console = Console(file=output, width=200)
    conclude(sweep, console)
    assert output.getvalue().count("two seeds of one variant on one order of data differ by") == 3
    stored = json.loads((sweep.path / "aa_library.json").read_text())["scales"]
    assert {entry["scale"] for entry in stored} == {"xs", "s", "m"}
