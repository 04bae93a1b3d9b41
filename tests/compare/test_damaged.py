"""What a machine or a hand can leave of a sweep: missing, damaged, copied and contradicting runs."""

from __future__ import annotations

import hashlib
import json
import random
import shutil

import pytest

from harness.compare import compare
from harness.compare.inputs.lr_tuning import read_tuning
from harness.compare.inputs.noise_floor import LibraryEntry, write_library
from harness.compare.inputs.run_records import read_runs
from harness.compare.results.comparison import Comparison
from harness.compare.results.verdict_types import Decision, GateResult
from harness.core import atomic_files
from harness.core.errors import UserError
from harness.records.paths import SweepDir
from harness.records.run.config_file import read_config
from harness.records.sweep import ledger
from harness.records.sweep.timing import read_timing, write_timing
from tests.compare import malform
from tests.compare.judging import ONE, SMALL, is_treatment, judged, only
from tests.compare.synthetic import Recipe, write_sweep


def test_a_config_that_no_longer_fits_its_seal(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", ONE)
    assert "HAND_EDITED" not in only(compare(sweep)).flags
    file = sweep.run("xs", "hybrid", 0).config
    file.write_text(file.read_text().replace("learning_rate: 0.003", "learning_rate: 0.03"))
    assert "HAND_EDITED" in only(compare(sweep)).flags


def test_a_sweep_in_a_folder_whose_name_reads_like_a_pattern(tmp_path):
    plain = write_sweep(tmp_path / "sweep", ONE)
    odd = SweepDir(tmp_path / "exp[1] *" / "sweep")
    shutil.copytree(plain.path, odd.path)
    assert only(compare(odd)).delta == only(compare(plain)).delta
    assert only(compare(odd)).decision is only(compare(plain)).decision


def test_the_same_run_twice(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", Recipe(scales=ONE.scales))
    for seed in (0, 1, 2):
        source, target = sweep.run("xs", "mha", seed).path, sweep.run("xs", "hybrid", seed).path
        shutil.rmtree(target / "metrics")
        shutil.copytree(source / "metrics", target / "metrics")
    rung = only(compare(sweep))
    assert "CORRELATION_IMPLAUSIBLE" in rung.flags
    assert (rung.delta.mean, rung.delta.low, rung.delta.high, rung.p) == (0.0, 0.0, 0.0, 1.0)
    assert rung.decision is not Decision.B_BETTER


def test_equal_steps_are_enough_where_the_evaluations_differ(tmp_path):
    def edit(draft):
        draft.status["loss"] = draft.steps[-1]["loss"]
        if is_treatment(draft, 1):
            draft.steps = steps[1]
            draft.status["loss"] = steps[1][-1]["loss"]
        steps[draft.seed] = draft.steps

    steps: dict[int, list[dict]] = {}
    recipe = Recipe(scales=ONE.scales)
    assert "CORRELATION_IMPLAUSIBLE" in only(judged(tmp_path / "a", recipe, edit)).flags

    def last_alone(draft):
        draft.status["loss"] = 3.0

    assert "CORRELATION_IMPLAUSIBLE" not in only(judged(tmp_path / "b", recipe, last_alone)).flags


def test_one_pair_of_one_run_is_enough(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", Recipe(scales=ONE.scales))
    source, target = sweep.run("xs", "mha", 0).path, sweep.run("xs", "hybrid", 0).path
    shutil.rmtree(target / "metrics")
    shutil.copytree(source / "metrics", target / "metrics")
    assert "CORRELATION_IMPLAUSIBLE" in only(compare(sweep)).flags


def test_a_copied_directory_is_no_new_seed(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", ONE)
    before = only(compare(sweep))
    for variant in ("mha", "hybrid"):
        source = sweep.run("xs", variant, 0).path
        for name in ("seed9", "seed-copy"):
            shutil.copytree(source, source.with_name(name))
        shutil.rmtree(source.with_name("seed-copy") / "metrics")
    after = only(compare(sweep))
    assert "HAND_EDITED" in after.flags
    assert after.decision is Decision.INVALID
    assert (after.n, after.delta) == (before.n, before.delta)


def test_unfinished_sweep_compares_what_is_complete(tmp_path):
    def edit(draft):
        if draft.scale == "s" and draft.seed > 0:
            draft.status |= {"state": "running", "step": 20}
            draft.evals = draft.evals[:4]
            draft.branches = {}

    comparison = judged(tmp_path, SMALL, edit)
    done, open_ = comparison.rungs
    assert done.n == 3
    assert done.decision is Decision.B_BETTER
    assert open_.n == 1
    assert open_.decision is Decision.INCONCLUSIVE
    assert "INCOMPLETE" in open_.flags
    assert "finish" in open_.settle
    assert comparison.ladder[0].decision is not Decision.INVALID
    assert [state.state for state in comparison.runs].count("running") == 4


def test_one_variant_missing_at_a_scale(tmp_path):
    recipe = Recipe(scales=SMALL.scales, variants={"mha": 1.0, "gqa": 0.9, "hybrid": 1.05}, with_steps=False)
    comparison = judged(tmp_path, recipe, lambda d: not (d.variant == "gqa" and d.scale == "s"))
    missing = [state for state in comparison.runs if state.state == "missing"]
    assert [(state.scale, state.variant) for state in missing] == [("s", "gqa")] * 3
    gone = next(rung for rung in comparison.rungs if (rung.scale, rung.variant) == ("s", "gqa"))
    assert (gone.n, gone.delta.mean, gone.decision) == (0, None, Decision.INCONCLUSIVE)
    assert "INCOMPLETE" in gone.flags
    assert "INCOMPLETE" in next(ladder for ladder in comparison.ladder if ladder.variant == "gqa").flags
    assert {ladder.variant: ladder.decision for ladder in comparison.ladder}["hybrid"] is Decision.B_BETTER


def test_run_without_evaluation(tmp_path):
    def edit(draft):
        if is_treatment(draft, 0):
            draft.evals = []

    comparison = judged(tmp_path, ONE, edit)
    assert only(comparison).n == 2
    assert "INCOMPLETE" in only(comparison).flags
    assert any("without any evaluation" in state.problem for state in comparison.runs)


def test_half_written_part(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", ONE)
    (part,) = sweep.run("xs", "hybrid", 0).metrics.glob("evals-*")
    part.write_bytes(part.read_bytes()[:-40])
    comparison = compare(sweep)
    assert only(comparison).n == 2
    assert {"INCOMPLETE", "DAMAGED"} <= set(only(comparison).flags)
    assert any("damaged metrics part" in state.problem for state in comparison.runs)


def test_part_that_is_no_parquet_though_its_checksum_fits(tmp_path):

    sweep = write_sweep(tmp_path / "sweep", ONE)
    (part,) = sweep.run("xs", "hybrid", 0).metrics.glob("evals-*")
    part.unlink()
    checksum = hashlib.sha256(b"nonsense").hexdigest()[:16]
    (part.parent / f"evals-00000000-00000064.{checksum}.parquet").write_bytes(b"nonsense")
    comparison = compare(sweep)
    assert only(comparison).n == 2
    assert any("cannot be read" in state.problem for state in comparison.runs)


@pytest.mark.parametrize("file", ["run.json", "config.yaml", "status.json", "examples.json"])
@pytest.mark.parametrize("content", ["", "[1, 2"])
def test_damaged_small_files_never_raise(tmp_path, file, content):
    sweep = write_sweep(tmp_path / "sweep", ONE)
    (sweep.run("xs", "hybrid", 1).path / file).write_text(content)
    comparison = compare(sweep)
    noticed = {"DAMAGED", "HAND_EDITED", "INCOMPLETE", "ORDER_UNVERIFIED"} & set(only(comparison).flags)
    assert noticed


OF_ANOTHER_KIND = [
    ("seed", [1]), ("seed", "x"), ("scale", 3), ("variant", None), ("variant", {}), ("code_hash", {"a": 1}),
    ("touches", 3), ("touches", [1]), ("parent", "x"), ("parent", {"a": 1}), ("facts", None),
    ("facts.paths", [1]), ("facts.paths", {"a": 1}), ("facts.paths", {"a": ["x"]}), ("facts.steps", "x"),
    ("facts.flops_per_token", [1]),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), OF_ANOTHER_KIND, ids=str)
def test_run_json_with_something_of_another_kind_is_damaged(tmp_path, key, value):
    sweep = write_sweep(tmp_path / "sweep", ONE)
    file = sweep.run("xs", "hybrid", 1).run
    content = json.loads(file.read_text())
    *way, last = key.split(".")
    (content["facts"] if way else content)[last] = value
    file.write_text(json.dumps(content))
    comparison = compare(sweep)
    assert "DAMAGED" in only(comparison).flags
    assert any("run.json is missing, damaged" in state.problem for state in comparison.runs)


@pytest.mark.parametrize("node", ["scale", "schedule", "data", "optimizer", "rule"])
@pytest.mark.parametrize("value", ["3", "[1, 2]", "text", "true"])
def test_a_config_with_something_of_another_kind_is_hand_edited(tmp_path, node, value):
    import yaml

    sweep = write_sweep(tmp_path / "sweep", ONE)
    file = sweep.run("xs", "hybrid", 1).config
    text, _, seal = file.read_text().rpartition("# sha256")
    config = yaml.safe_load(text) | {node: yaml.safe_load(value)}
    file.write_text(f"{yaml.safe_dump(config)}# sha256{seal}")
    assert "HAND_EDITED" in only(compare(sweep)).flags


def test_empty_and_absent_sweeps(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "Nothing to compare" in compare(tmp_path / "empty").verdict
    with pytest.raises(FileNotFoundError, match="no sweep directory"):
        compare(tmp_path / "absent")


def test_names_with_markup_pass_through(tmp_path):
    recipe = Recipe(scales={"<b>": 10**7}, variants={"mha": 1.0, "<script>": 1.05}, with_steps=False)
    assert only(judged(tmp_path, recipe)).variant == "<script>"


def resealed(path, change) -> None:
    """Change a sealed record as its writer would."""
    content = json.loads(path.read_text())
    content.pop("checksum", None)
    change(content)
    atomic_files.write_checksummed_json(path, content)


@pytest.mark.parametrize(
    "name", ["run.json", "status.json", "examples.json", "branch50/run.json", "branch50/status.json"]
)
def test_a_damaged_record_blocks_its_rung_and_is_named(tmp_path, name):
    sweep = write_sweep(tmp_path / "sweep", SMALL)
    path = sweep.run("xs", "mha", 1).path / name
    path.write_bytes(path.read_bytes().replace(b"0", b"1", 1))
    comparison = compare(sweep)
    xs, s = comparison.rungs
    assert ("DAMAGED" in xs.flags, xs.decision) == (True, Decision.INVALID)
    assert ("DAMAGED" in s.flags, s.decision) == (False, Decision.B_BETTER)
    assert comparison.ladder[0].decision is Decision.INVALID
    (note,) = [note for note in comparison.notes if note.startswith("DAMAGED: xs/mha/seed1: ")]
    assert name in note or ("branch50: " in note and name.partition("/")[2] in note)


@pytest.mark.parametrize("kind", ["evals", "steps"])
@pytest.mark.parametrize("branch", ["", "branch50/"])
def test_a_damaged_part_of_a_curve_blocks_its_rung(tmp_path, kind, branch):
    sweep = write_sweep(tmp_path / "sweep", Recipe(scales=ONE.scales))
    (part,) = (sweep.run("xs", "mha", 1).path / branch / "metrics").glob(f"{kind}-*")
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    comparison = compare(sweep)
    assert only(comparison).decision is Decision.INVALID
    assert any(part.name in state.problem for state in comparison.runs)


@pytest.mark.parametrize("name", ["branch50", "branch50/run.json", "branch50/metrics", "metrics"])
def test_a_finished_run_without_its_branch_or_its_curve_is_damaged(tmp_path, name):
    sweep = write_sweep(tmp_path / "sweep", ONE)
    path = sweep.run("xs", "mha", 1).path / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "DAMAGED" in only(compare(sweep)).flags


def test_a_rule_that_was_changed_decides_nothing(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", ONE)
    sweep.rule.write_text(sweep.rule.read_text().replace('"margin": 0.01', '"margin": 0.11'))
    assert only(compare(sweep)).decision is Decision.INVALID
    sweep.rule.write_text("{")
    comparison = compare(sweep)
    assert only(comparison).decision is Decision.INVALID
    assert "rule_damaged" in [deviation.kind for deviation in comparison.deviations]


def test_an_aa_library_is_named_when_used_and_left_out_when_damaged(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", ONE)
    without = only(compare(sweep))
    record = read_runs(sweep)[0].provenance
    size, evaluation = record.facts.non_embedding, record.facts.eval_fingerprint
    null = SweepDir(tmp_path / "null")
    write_library(null, [LibraryEntry("xs", 0.0012, 12.0, 0.2, 16, size, record.tokens, evaluation)])
    comparison = compare(sweep)
    assert only(comparison).method == "moderated t"
    assert any("at xs uses ../null/aa_library.json" in note for note in comparison.notes)
    library = null.noise_floors.read_text()
    for text in (library.replace("0.0012", "0.0013"), library.replace('"checksum"', '"checksul"'), "["):
        null.noise_floors.write_text(text)
        comparison = compare(sweep)
        assert only(comparison) == without
        assert any("aa_library.json does not match" in note for note in comparison.notes)
    scales = {"scales": json.loads(library)["scales"]}
    null.noise_floors.write_text(json.dumps(scales))  # of a version without checksums
    assert only(compare(sweep)).method == "moderated t"


def only_gate(comparison: Comparison) -> GateResult:
    assert comparison.gate
    (gate,) = comparison.gate
    return gate


def test_a_damaged_timing_passes_no_gate(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", Recipe(scales=ONE.scales, beside={"gate": {"name": "promote"}}))
    variants = {name: {"step_seconds": 1.25, "peak_bytes": 10} for name in ("mha", "hybrid")}
    write_timing(sweep, {"scale": "xs", "variants": variants})
    gate = only_gate(compare(sweep))
    assert gate.promote
    sealed = sweep.timing.read_text()
    unsealed = json.dumps({"scale": "xs", "variants": variants}).replace("1.25", "1.5", 1)
    for text in (sealed.replace("1.25", "1.24", 1), unsealed, "["):
        sweep.timing.write_text(text)
        assert read_timing(sweep) is None
        comparison = compare(sweep)
        gate = only_gate(comparison)
        assert (gate.promote, gate.reason) == (False, "not measured: speed, memory")
        assert any("timing.json does not match" in note for note in comparison.notes)
    sweep.timing.write_text(json.dumps({"scale": "xs", "variants": variants}))  # of an earlier version
    gate = only_gate(compare(sweep))
    assert gate.promote


def test_numbers_that_no_run_has_are_damage(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", SMALL)
    run = sweep.run("xs", "hybrid", 0)
    resealed(run.run, lambda content: content["facts"].update(flops_per_token=float("inf")))
    xs, s = compare(sweep).rungs
    assert ("DAMAGED" in xs.flags, "DAMAGED" in s.flags) == (True, False)


@pytest.mark.parametrize("text", [malform.ALIASES, malform.MERGES, "a: " + "1" * 5000, "[" * 100_000])
def test_a_config_that_would_expand_without_end_is_damage(tmp_path, text):
    sweep = write_sweep(tmp_path / "sweep", SMALL)
    config = sweep.run("xs", "hybrid", 0).config
    config.write_text(text)
    xs, s = compare(sweep).rungs
    assert ("DAMAGED" in xs.flags, s.decision) == (True, Decision.B_BETTER)
    with pytest.raises(UserError, match=r"config\.yaml"):
        read_config(config)


@pytest.mark.parametrize("bit", [0, 1, -1])
def test_a_line_of_the_ledger_that_cannot_be_read_is_a_deviation(tmp_path, bit):
    sweep = write_sweep(tmp_path / "sweep", ONE)
    ledger.append(sweep, "placement", {"runs": {"xs/mha/seed9": {"lane": 0}}})
    missing = [run.path for run in compare(sweep).runs if run.outcome is None]
    assert missing == ["xs/mha/seed9"]
    content = bytearray(sweep.ledger.read_bytes())
    start = content[:-1].rfind(b"\n") + 1  # the last line, after which none misses it
    content[start + bit if bit >= 0 else bit] ^= 1
    sweep.ledger.write_bytes(content)
    comparison = compare(sweep)
    assert not [run for run in comparison.runs if run.outcome is None]
    (deviation,) = comparison.deviations
    assert deviation.kind == "ledger_unreadable"


def test_a_damaged_tuning_run_is_not_left_out_of_its_bracket(tmp_path):
    sweep = write_sweep(tmp_path / "tune", Recipe(scales=ONE.scales, seeds=(0,)))
    file = next(sweep.run("xs", "hybrid", 0).metrics.glob("evals*"))
    malform.flip_bit(file, random.Random(0))
    with pytest.raises(UserError, match=r"xs/hybrid/seed0: damaged metrics part .* Repeat the sweep command"):
        read_tuning(sweep, ())
