"""Completion by TAB, asked for by real shells, and its words against what the config really takes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import cli
from harness.cli.completion.override_words import completions, names_file
from harness.config.compose import compose, config_groups
from harness.config.schema.run import field_type
from tests.cli.support import clean_env
from tests.compare.synthetic import Recipe, write_sweep

BASH = """
eval "$(harness completion bash)"
COMP_LINE="$1" COMP_POINT=${#1} COMP_TYPE=9
COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
_python_argcomplete harness
printf '%s\\n' "${COMPREPLY[@]}"
"""
FISH = """
harness completion fish | source
complete -C "$argv[1]"
"""
IMPORTED = """
import os, sys
os._exit = sys.exit
from harness.cli import main
try:
    main()
finally:
    print(*sorted({"jax", "hydra", "numpy", "polars", "rich"} & {*sys.modules}))
"""


def in_shell(*command: str, folder: Path) -> list[str]:
    """Return what a shell answers that finds the command in its path."""
    scripts = folder / "bin"
    scripts.mkdir(exist_ok=True)
    script = scripts / "harness"
    script.write_text(
        f"#!{sys.executable}\nimport sys\nfrom harness.__main__ import main\nsys.exit(main())\n"
    )
    script.chmod(0o755)
    env = clean_env(PATH=f"{scripts}:{os.environ['PATH']}", HOME=str(folder))
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    return [line.split("\t")[0].strip() for line in done.stdout.splitlines()]


@pytest.fixture
def project(tmp_path) -> Path:
    """A folder with a choice of its own and a sweep."""
    (tmp_path / "conf" / "variant").mkdir(parents=True)
    (tmp_path / "conf" / "variant" / "gilded.yaml").write_text("variant: {name: gilded}\n")
    write_sweep(tmp_path / "runs" / "trial", Recipe(scales={"xs": 10**7}, branches=()))
    return tmp_path


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("harness ques", ["questions"]),
        ("harness sweep --d", ["--dry-run"]),
        ("harness sweep variant=mha,gi", ["mha,gilded"]),
        ("harness compare --match ", ["flops", "seconds"]),
        ("harness watch runs/", ["runs/trial"]),
        ("harness sample runs/trial/xs/mha/", ["runs/trial/xs/mha/seed0", "runs/trial/xs/mha/seed1"]),
    ],
)
def test_bash_completes_a_line(line, words, project):
    answers = in_shell("bash", "-c", BASH, "bash", line, folder=project)
    assert answers[: len(words)] == words, "bash itself keeps what stands before the last `=`"


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
@pytest.mark.parametrize(
    ("line", "word"), [("harness ques", "questions"), ("harness sweep variant=gi", "variant=gilded")]
)
def test_fish_completes_a_line(line, word, project):
    assert word in in_shell("fish", "-c", FISH, line, folder=project)


@pytest.mark.parametrize(
    "line", ["harness ", "harness sweep mod", "harness sweep question=al", "harness zzz x"]
)
def test_a_tab_imports_nothing_slow(line, tmp_path):
    answers = tmp_path / "answers"
    env = clean_env(
        _ARGCOMPLETE="1", COMP_LINE=line, COMP_POINT=str(len(line)), _ARGCOMPLETE_STDOUT_FILENAME=str(answers)
    )
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED], env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "")
    assert bool(answers.read_text()) == ("zzz" not in line)


def test_every_choice_of_every_group_is_completed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for group, names in config_groups().items():
        assert {f"{group}={name}" for name in names} <= {*completions(f"{group}=", [])}


def test_keys_and_values_are_those_that_a_config_takes():
    keys = [key for node in ("", "data.", "rule.", "schedule.", "model.") for key in completions(node, [])]
    leaves = [key.removesuffix("=") for key in keys if key.endswith("=") and "." in key]
    assert len(leaves) > 50
    assert all(field_type(key) is not None for key in leaves)
    assert completions("data.packing=", []) == ["data.packing=concatenate", "data.packing=best_fit"]
    for override in completions("data.mask_documents=", []):
        compose([override])


def test_a_choice_on_the_searchpath_of_the_line_is_completed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ideas" / "variant").mkdir(parents=True)
    (tmp_path / "ideas" / "variant" / "retention.yaml").touch()
    line = ["sweep", "'hydra.searchpath=[file://ideas]'"]
    assert completions("variant=rete", line[:1]) == []
    assert "variant=mha,retention" in completions("variant=mha,", line)


def test_keys_that_name_files_are_known():
    assert all(map(names_file, ("data.sources.own.path", "runs", "data.tokenizer", "finetune.parent")))
    assert not names_file("data.packing")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_names_the_command(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    assert "harness" in capsys.readouterr().out


def test_an_unknown_shell_is_one_sentence(capsys):
    assert cli.main(["completion", "ksh"]) == 2
    assert "invalid choice: 'ksh' (choose from" in capsys.readouterr().err
