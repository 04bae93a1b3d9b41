"""What a sweep's provenance says, held against the files themselves; damage is told, never raised."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest

from harness import cli
from harness.compare import compare, store_library
from harness.compare.context.lineage import sweep_provenance
from harness.compare.inputs.ledger_check import read_ledger_state
from harness.compare.results.to_json import to_json
from harness.core import atomic_files
from harness.core.hashing import hash_json
from harness.records.paths import SweepDir
from harness.records.run import environment
from harness.records.run.checkpoint_manifest import Manifest, write_manifest
from harness.records.run.environment import Environment
from harness.records.sweep import ledger
from tests.compare.synthetic import Recipe, write_sweep

RECIPE = Recipe(scales={"xs": 10**7}, seeds=(0, 1), with_steps=False)
HERE = Environment("cpu", "cpu", 1, 2, 2, "x86_64", "avx", "--a", {"jax": "1"})
BASE = {"run": "/x/parents/xs/mha/seed0", "name": "parents/xs/mha/seed0@9", "checksum": "c" * 64}


@pytest.fixture
def sweep(tmp_path):
    """Two blocks, each run with a branch at half, one checkpoint each, placed and then amended."""
    sweep = write_sweep(tmp_path / "sweep", RECIPE)
    for run in sweep.runs():
        for each in (run, *run.branches()):
            folder = each.checkpoint(64)
            folder.mkdir(parents=True)
            (folder / "data").write_text(str(each.path))
            write_manifest(each, Manifest(64, "", "", "", 0.0, {}))
    placed = {"block": "xs/seed0", "lane": 0, "mesh": {"data": 2}}
    ledger.append(sweep, "placement", {"runs": {"xs/mha/seed0": placed, "xs/hybrid/seed0": placed}})
    return sweep


def of(sweep: SweepDir):
    return sweep_provenance(sweep, compare(sweep))


def change(sweep, path, **fields):
    file = sweep.path / path / "run.json"
    atomic_files.write_checksummed_json(file, atomic_files.read_checksummed_json(file) | fields)


def test_every_run_and_branch_with_what_its_files_say(sweep):
    found = {run.path: run for run in of(sweep).runs}
    assert found.keys() == {
        f"xs/{variant}/seed{seed}{branch}"
        for variant in RECIPE.variants
        for seed in RECIPE.seeds
        for branch in ("", "/branch50")
    }
    for path, run in found.items():
        record = atomic_files.read_json(sweep.path / path / "run.json")
        for name in ("identity", "config_hash", "code_hash", "versions"):
            assert getattr(run, name) == record[name]
        for name in ("data_fingerprint", "eval_fingerprint"):
            assert getattr(run, name) == record["facts"][name]
        manifest = atomic_files.read_json(sweep.path / path / "checkpoints" / "00000064.manifest.json")
        assert run.checkpoint
        assert dataclasses.astuple(run.checkpoint) == (64, manifest["checksum"])
    examples = atomic_files.read_json(sweep.path / "xs/mha/seed0/examples.json")
    assert found["xs/mha/seed0"].examples == examples["hash"]
    assert found["xs/mha/seed0"].mesh == found["xs/mha/seed0/branch50"].mesh == {"data": 2}
    assert found["xs/mha/seed1"].mesh is None


def test_a_manifest_that_no_longer_fits_vouches_for_nothing(sweep):
    manifest = sweep.run("xs", "mha", 0).manifest(64)
    content = atomic_files.read_json(manifest)
    atomic_files.write_json(manifest, content | {"device_seconds": 1.0})
    (run,) = [run for run in of(sweep).runs if run.path == "xs/mha/seed0"]
    assert run.checkpoint
    assert dataclasses.astuple(run.checkpoint) == (64, None)


def test_equal_surroundings_stand_there_once(sweep):
    moved = dataclasses.replace(HERE, cores=8)
    record = environment.append_entry(environment.append_entry([], 0, HERE), 32, moved)
    change(sweep, "xs/mha/seed0", surroundings=record)
    change(sweep, "xs/mha/seed1", surroundings=record[:1])
    change(sweep, "xs/hybrid/seed0", surroundings=["nonsense", {"step": 0}])
    found = of(sweep)
    runs = {run.path: [found.surroundings[each.name] for each in run.surroundings] for run in found.runs}
    assert runs["xs/mha/seed0"] == [HERE, moved]
    assert runs["xs/mha/seed1"] == [HERE]
    assert not runs["xs/hybrid/seed0"]
    assert len(found.surroundings) == 2


def test_who_depends_on_what(sweep, tmp_path):
    facts = atomic_files.read_json(sweep.path / "xs/hybrid/seed0/run.json")["facts"]
    change(sweep, "xs/hybrid/seed0", facts=facts | {"base": BASE})
    null = write_sweep(tmp_path / "null", dataclasses.replace(RECIPE, seeds=(0, 1, 2, 3), null_orders=2))
    store_library(null, "mha")
    atomic_files.write_json(sweep.tune.learning_rates, {"variants": {}, "hash": hash_json({})})
    edges = {(edge.kind, edge.source): (edge.target, edge.checksum) for edge in of(sweep).depends_on}
    rule, library = atomic_files.read_json(sweep.rule), (tmp_path / "null/aa_library.json").read_bytes()
    assert edges.pop(("rule", "verdict")) == ("rule.json", rule.pop("hash"))
    assert edges.pop(("finetune", "xs/hybrid/seed0")) == (BASE["name"], BASE["checksum"])
    assert edges.pop(("tune", "sweep")) == ("tune/learning_rates.json", hash_json({}))
    assert edges.pop(("noise_floor", "verdict")) == (
        "../null/aa_library.json",
        hashlib.sha256(library).hexdigest(),
    )
    assert len(edges) == 4
    target, checksum = edges["branch", "xs/mha/seed0/branch50"]
    step = atomic_files.read_json(sweep.path / "xs/mha/seed0/branch50/run.json")["parent"]["step"]
    assert (target, checksum) == (f"xs/mha/seed0@{step}", None)  # its parent keeps the last one alone
    write_manifest(sweep.run("xs", "mha", 0), Manifest(step, "", "", "", 0.0, {}))
    manifest = atomic_files.read_json(sweep.run("xs", "mha", 0).manifest(step))
    assert ("branch", "xs/mha/seed0/branch50", target, manifest["checksum"]) in {
        dataclasses.astuple(edge) for edge in of(sweep).depends_on
    }


def test_the_hash_of_the_rule_is_that_of_its_content(sweep):
    rule = atomic_files.read_json(sweep.rule)
    (edge,) = [edge for edge in of(sweep).depends_on if edge.kind == "rule"]
    assert edge.checksum == hash_json({"rule": rule["rule"]})


def test_the_ledger_with_every_deviation_in_words(sweep):
    whole = read_ledger_state(sweep)
    assert (whole.intact, whole.entries, whole.deviations) == (True, 2, ())
    place = {"block": "xs/seed0", "lane": 1, "mesh": {"data": 4}}
    ledger.append(sweep, "restart", {"run": "xs/mha/seed0", "why": "the code changed"})
    ledger.append(sweep, "damage", {"run": "xs/mha/seed1", "faults": ["one", "two"]})
    ledger.append(sweep, "damage", {"file": "rule.json"})
    ledger.append(sweep, "drift", {"run": "xs/mha/seed1", "what": "the code changed", "step": 7})
    ledger.append(sweep, "placement", {"runs": {"xs/mha/seed0": place}})
    ledger.append(sweep, "amendment", {"detail": "added after the first launch: seed 3"})
    ledger.append(sweep, "prediction", {"median": 0.1})
    last = ledger.append(sweep, "rule", {})
    state = read_ledger_state(sweep)
    assert (state.head, state.intact, state.unreadable) == (last["hash"], True, 0)
    assert [(each.kind, each.words) for each in state.deviations] == [
        ("restart", "xs/mha/seed0 starts over: the code changed"),
        ("damage", "xs/mha/seed1: one; two"),
        ("damage", "rule.json: damaged"),
        ("drift", "xs/mha/seed1 continued from step 7: the code changed"),
        ("replan", "placed again: xs/mha/seed0"),
        ("amendment", "added after the first launch: seed 3"),
        ("late_rule", "the rule was fixed after runs were placed"),
    ]
    assert state.deviations[-1].time == last["time"]


def test_a_ledger_that_was_edited_is_not_intact(sweep):
    sweep.ledger.write_text(sweep.ledger.read_text().replace('"lane": 0', '"lane": 1') + '{"kind": ')
    state = read_ledger_state(sweep)
    assert (state.intact, state.edited, state.unreadable) == (False, (1,), 1)


def test_json_says_it_beside_the_comparison_and_nothing_else_changes(sweep, tmp_path, capsys):
    assert cli.main(["compare", str(sweep.path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told.pop("provenance") == json.loads(json.dumps(to_json(of(sweep))))
    assert told.pop("schema").startswith("compare/")
    told.pop("times")
    own = to_json(compare(sweep))
    own.pop("times")
    assert told == own


def test_what_cannot_be_read_is_told_and_not_raised(sweep):
    (sweep.path / "xs/mha/seed0/run.json").write_text("{")
    change(sweep, "xs/mha/seed1/branch50", parent={"step": "x"})
    facts = atomic_files.read_json(sweep.path / "xs/hybrid/seed1/run.json")["facts"]
    change(sweep, "xs/hybrid/seed1", facts=facts | {"base": {"odd": 1}})
    sweep.run("xs", "hybrid", 0).manifest(64).write_text("[]")
    sweep.ledger.write_text("nothing")
    found = of(sweep)
    assert [run.path for run in found.runs if run.problem] == ["xs/mha/seed0", "xs/mha/seed1/branch50"]
    assert found.ledger.entries == 0
    assert not found.ledger.intact
    json.dumps(to_json(found), allow_nan=False)
