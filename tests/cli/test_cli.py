"""The command: quick answers, exit statuses, no JAX where none is needed."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata

import pytest

from harness import cli
from harness.cli import verbs
from harness.compare.results.verdict_types import Look
from harness.compare.stats.paired_effects import effect_from_deltas
from tests.cli.support import run
from tests.compare.synthetic import write_sweep
from tests.compare.test_promotion_gate import gated, timing

NOTHING = effect_from_deltas([])
HEAVY = ("jax", "flax", "scipy.stats")
SLOW = (*HEAVY, "hydra", "omegaconf", "numpy", "polars", "pyarrow", "rich", "yaml", "asyncio")
"""Packages that take a tenth of a second or more to import, which the first answers do without."""
CALL = """
import sys
from harness import cli
code = cli.main(sys.argv[2:])
print("HEAVY", sorted({*sys.argv[1].split(",")} & {*sys.modules}), code, file=sys.stderr)
"""


def in_a_fresh_process(*arguments: str, heavy: Sequence[str] = HEAVY) -> tuple[str, str]:
    command = [sys.executable, "-c", CALL, ",".join(heavy), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


@pytest.mark.parametrize("verb", [None, *cli.VERBS])
def test_help_shows_an_example_and_imports_nothing_slow(verb):
    out, err = in_a_fresh_process(*filter(None, [verb, "--help"]), heavy=SLOW)
    assert f"$ harness {verb or ''}".strip() in out
    assert err.strip() == "HEAVY [] 0", "a verb imports what its work needs inside `run`"


def test_every_module_of_a_verb_is_a_verb():
    assert {module.name for module in pkgutil.iter_modules(verbs.__path__)} == {*cli.VERBS}


@pytest.mark.parametrize("arguments", [(), ("--version",)])
def test_the_first_answers_import_nothing_slow(arguments):
    assert in_a_fresh_process(*arguments, heavy=SLOW)[1].strip() == "HEAVY [] 0"


def test_compare_json_imports_no_jax(tmp_path):
    sweep = write_sweep(tmp_path / "sweep")
    out, err = in_a_fresh_process("compare", str(sweep.path), "--json")
    assert json.loads(out)["rungs"]
    assert err.strip() == "HEAVY [] 0"


def test_a_launch_imports_no_jax():
    code = "import sys, harness.cli.hydra_jobs, harness.cli.train_one; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_config_is_printed_instead():
    out, err = in_a_fresh_process("sweep", "--cfg", "job", "experiment=attention", "variant=mha")
    assert "experiment_name: attention" in out
    assert err.strip() == "HEAVY [] 0"


def test_of_a_sweep_it_is_the_first_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sweep", "experiment=imagine", "--cfg", "job", "-p", "variant", "seed=5,4"]) == 0
    assert capsys.readouterr().out.startswith("name: in_context\ntouches:\n"), "as its experiment has it"
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--cfg", "job", "-p", "modle", "seed=0,1"],
            "--package modle: the config has no such part; did you",
        ),
        (["--cfg", "hydra", "seed=0,1"], "seed=0,1: --cfg hydra shows one run. Give one value, or use"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(arguments, sentence, capsys):
    assert cli.main(["sweep", *arguments]) == 2
    assert capsys.readouterr().err.startswith(sentence)


def test_a_verb_that_is_none_is_answered_with_the_nearest(capsys):
    assert cli.main(["swep"]) == 2
    assert "did you mean 'sweep'?" in capsys.readouterr().err


def test_the_version_and_help_as_other_commands_have_them(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"ab-harness {metadata.version('ab-harness')}\n"
    printed = []
    for arguments in (["help"], ["--help"], ["help", "sweep"], ["sweep", "--help"], []):
        assert cli.main(arguments) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != printed[2] == printed[3]
    commands = [line.removeprefix("  $ ") for line in printed[4].splitlines() if line.startswith("  $ ")]
    assert commands == [*cli.FIRST_DAY]
    assert len(commands) == 3
    assert cli.main(["help", "swep"]) == 2
    assert "did you mean 'sweep'?" in capsys.readouterr().err


def test_the_package_is_the_command(tmp_path):
    assert run("help", folder=tmp_path) == run("--help", folder=tmp_path)
    assert run("help", folder=tmp_path)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["sweep", "--dry"], "harness sweep: unknown option --dry; did you mean '--dry-run'?"),
        (["sweep", "seed=1", "--dryrun", "scale=s"], "unknown option --dryrun; did you mean '--dry-run'?"),
        (["sweep", "-x"], "harness sweep: unknown option -x; valid: --cfg, --dry-run"),
        (["train", "--dry-run"], "unknown option --dry-run; `harness sweep --dry-run` predicts one run too"),
        (["train", "--cgf", "job"], "harness train: unknown option --cgf; did you mean '--cfg job'?"),
        (
            ["sweep", "--cfg"],
            "harness sweep: argument --cfg/-c: expected one argument; `harness",
        ),
        (["sweep", "--run"], "harness sweep: --run trains one run, and a sweep all of them"),
        (["train", "--resolve"], "harness train: --resolve goes with --cfg job"),
        (["sweep", "--package", "scale"], "harness sweep: --package goes with --cfg job"),
        (["plan", "--dry-run"], "unknown option --dry-run; a plan trains nothing in any case"),
        (["compare", "runs/x", "--htlm"], "harness compare: unknown option --htlm; did you mean '--html'?"),
    ],
)
def test_an_unknown_option_is_one_sentence_with_the_right_one(arguments, sentence, capsys):
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert err.count("\n") == 1
    assert "usage" not in err


def test_a_sweep_that_is_none_is_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["compare", "runs/nope"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(("seconds", "promoted"), [(0.9, True), (9.0, False)])
def test_requiring_promotion_is_the_only_way_a_verdict_fails(tmp_path, capsys, seconds, promoted):
    asked = ["compare", str(gated(tmp_path, timing(seconds)).path), "--json"]
    assert cli.main(asked) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [each["promote"] for each in answer["gate"]] == [promoted]
    assert answer["times"]["step_seconds"]["mha"] == 1.0
    assert f"Per second, hybrid is {'better' if promoted else 'worse'}" in answer["verdict"]
    assert cli.main([*asked, "--require", "promote"]) == int(not promoted)


def test_diff_asks_the_probe_and_prints_plain_data(capsys, monkeypatch):
    import harness.inspection.diff.diff_checkpoints as probe

    asked = []
    monkeypatch.setattr(
        probe, "diff", lambda *runs, trust: asked.append(runs) or Look(0.5, 10, NOTHING, None, "shown")
    )
    assert cli.main(["diff", "runs/a@3", "runs/b", "--json"]) == 0
    assert asked == [("runs/a@3", "runs/b")]
    assert json.loads(capsys.readouterr().out)["delta"]["estimand"] == "trajectory_only"


@pytest.mark.parametrize(
    "arguments", [["a"], ["a", "b", "c"], ["a", "b", "--jsn"], ["nowhere/a", "nowhere/b"]]
)
def test_diff_answers_mistakes_in_one_sentence(arguments, capsys):
    assert cli.main(["diff", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1
