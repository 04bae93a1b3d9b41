"""What the documents print, tried: commands, overrides, options, files, paths. documents.py says how."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import re
from pathlib import Path

import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

from harness.cli import VERBS
from harness.config import compose as composing
from tests.docs.checkout import add_logs, make_checkout, run_there, shown_files
from tests.docs.data_files import make_files
from tests.docs.documents import (
    COMMANDS,
    DOCUMENTS,
    NOT_HERE,
    ROOT,
    TRAINED,
    Command,
    commands,
    inline,
    overrides,
)

PRINTED = commands()
TRAINING = ("sweep", "train")
PROJECT = "experiment=mine"
"""Experiment of the project that the first page makes; test_site.py follows that page."""
VERB_COMMANDS = [
    command
    for command in PRINTED
    if command.words[0] == "harness" and command.words[1] in VERBS and PROJECT not in command.words
]
NEEDS = {
    "data=own data.sources.own.path=FILE": "FILE is the reader's",
    "engine.processes=P": "P is a number",
    "model.attention.options.half_life=32.0": "an option of the guide's own mechanism",
    "cluster=NAME": "NAME is a cluster",
    "runs=s3://...": "printed as what is refused",
}
"""Overrides that are a pattern, or belong to something else, with the reason."""
WITH = {
    "model=dit": ["variant=in_context", "scale=image_xs"],
    "data=emoji": ["model=dit", "variant=in_context", "scale=image_xs"],
    "rule.domains=[code]": ["experiment=data_mix"],
    "finetune.parent=RUN": ["experiment=finetune"],
    "roster=frontier": ["experiment=colossus2", "member=1t_a"],
    "tracker.wandb.mode=online": ["tracker=wandb"],
}
"""What else a run needs beside some overrides."""
EVIDENCE = "evidence="


def ids(values):
    return [value.text if isinstance(value, Command) else " ".join(value) for value in values]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    return make_checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture
def inside(checkout, monkeypatch) -> Path:
    monkeypatch.chdir(checkout)
    monkeypatch.setattr(composing, "CONF_FOLDER", checkout / "conf")
    return checkout


@pytest.fixture
def two_configs(inside, monkeypatch):
    """Only the first and the last config of a sweep are composed: each costs a twentieth of a second."""
    Plugins.instance()  # Hydra's search for plugins makes the class anew
    launcher = importlib.import_module("hydra_plugins.harness_launcher").HarnessLauncher
    launch = launcher.launch

    def launch_two(self, jobs, initial_job_idx):
        return launch(self, [jobs[0], *jobs[1:][-1:]], initial_job_idx)

    monkeypatch.setattr(launcher, "launch", launch_two)
    monkeypatch.setattr(Sweeper, "validate_batch_is_legal", lambda *_: None)


def plan_words(words) -> list[str]:
    """Return the overrides of a plan that Hydra reads, once its parser has read the options."""
    parser = importlib.import_module("harness.cli.verbs.plan").make_parser()
    _, rest = parser.parse_known_args([*words])
    return [word for word in rest if not word.startswith(EVIDENCE)]


@pytest.mark.parametrize("command", VERB_COMMANDS, ids=ids(VERB_COMMANDS))
def test_a_command_is_read_as_it_is_printed(command, two_configs):
    _, verb, *words = command.words
    if "--help" in words:
        return  # tests/cli/test_examples.py
    if verb in TRAINING:
        assert composing.sweep_configs([word for word in words if word != "--dry-run"])
    elif verb == "plan":
        assert composing.sweep_configs(plan_words(words))
    else:
        importlib.import_module(f"harness.cli.verbs.{verb}").make_parser().parse_args(words)


def test_the_files_of_the_documents_are_chosen(inside):
    assert composing.compose(["experiment=attention", "variant=mine"]).variant.name == "mine"
    member = composing.compose(["experiment=colossus2", "roster=replica", "member=1t_c"])
    assert (member.scale.name, member.variant.name) == ("1t", "gqa")


def test_every_file_that_a_document_shows_has_a_name_or_is_python_to_try():
    unnamed = {document for document, file, _ in shown_files() if not file}
    named = {document for document, file, _ in shown_files() if file}
    assert unnamed == {"docs/logs.md", "docs/planning.md"}
    assert not unnamed & named


def test_the_python_of_a_document_runs(checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    names: dict[str, dict] = {}  # later parts of a document use what earlier ones made
    for document, file, text in shown_files():
        if not file:
            exec(compile(text, document, "exec"), names.setdefault(document, {}))


SETTINGS = [
    words for words in overrides() if " ".join(words) not in NEEDS and not words[0].startswith(EVIDENCE)
]


@pytest.mark.parametrize("words", SETTINGS, ids=ids(SETTINGS))
def test_overrides_compose(words, inside):
    assert composing.compose([*WITH.get(" ".join(words), ()), *words])


def test_make_has_every_target():
    targets = {word for command in PRINTED if command.words[0] == "make" for word in command.words[1:2]}
    rules = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets <= {*rules}
    rooms = {
        word[5:] for c in PRINTED if c.words[0] == "make" for word in c.words if word.startswith("ROOM=")
    }
    assert [room for room in rooms if not (ROOT / "tests" / room).is_dir()] == []


def test_python_finds_every_module_and_pytest_every_file(checkout):
    for program, *words in (command.words for command in PRINTED):
        if program == "python" and "-m" in words:
            assert importlib.util.find_spec(words[words.index("-m") + 1]), words
        elif program == "python":
            assert (ROOT / words[0]).is_file() or (checkout / words[0]).is_file(), words
        elif program == "pytest":
            assert (ROOT / words[-1]).exists(), words


def test_every_other_program_has_its_reason():
    tried = {"harness", "make", "python", "pytest"}
    assert {command.words[0] for command in PRINTED} <= tried | NOT_HERE.keys()
    assert tried | NOT_HERE.keys() == {*COMMANDS}


ROOMS = [path.name for path in (ROOT / "harness").iterdir() if path.is_dir() and path.name != "__pycache__"]
TOP = [
    name
    for name in os.listdir(ROOT)
    if name in ("harness", "tests", "conf", "experiments", "docs", "hydra_plugins")
]
PATH = re.compile(rf"((?:harness/)?(?:{'|'.join(ROOMS)})|{'|'.join(TOP)})/[\w./*-]*")
SCHEMA = re.compile(r"[a-z]+/\d+\.\d+")
"""Name and version of a schema of JSON, such as compare/1.0."""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.parent.name + "/" + path.name)
def test_paths_modules_and_links_exist(document, checkout):
    text = document.read_text()
    for piece in inline(text):
        if PATH.fullmatch(piece) and "NAME" not in piece and not SCHEMA.fullmatch(piece):
            assert any(
                [*checkout.glob(piece.rstrip("/"))] or [*ROOT.glob(piece)] or [*ROOT.glob(f"harness/{piece}")]
            ), piece
        if match := re.fullmatch(r"(harness(?:\.\w+)+)(?:\(.*\))?", piece):
            assert_resolves(match[1])
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        assert link.startswith("http") or (document.parent / link).exists(), link


def assert_resolves(name: str) -> None:
    """Import the longest part of a dotted name that is a module, and look the rest up in it."""
    pkgutil.resolve_name(name)


def test_options_are_known():
    known = {"--once", "--mem", "--ntasks-per-node", "--exact", "--gpus-per-task", "--worker"}
    for verb in VERBS:
        known |= {*importlib.import_module(f"harness.cli.verbs.{verb}").make_parser()._option_string_actions}
    for document in DOCUMENTS:
        for piece in inline(document.read_text()):
            if piece.startswith("--"):
                assert piece.split("=")[0].split()[0] in known, (document.name, piece)


TRAINING_WORDS = ["experiment=attention", "variant=mha,mine", "experiment_name=mine", "scale=xs", "seed=0"]
MISSING = {
    "harness compare runs/mine --require promote": "",  # exit status 1: the sweep has no gate
    "harness compare runs/attention --require promote": "",
    "variant=mha,shrunk": "differ in optimizer.weight_decay",
    "variant=mha,longer": "(UNEQUAL_TOKENS)",
    "harness sweep experiment=finetune": "Train the parent first.",
    "evidence=runs/colossus2_evidence": "evidence=runs/colossus2_evidence is not a sweep",  # 20 minutes
    "ROWS.csv": "ROWS.csv: No such file",  # the reader's
    "/data/web": "data.tokenizer=tokenizer.json is not a file",  # the reader's
}
"""What a command says for want of something that is not made here, by a word of the command or all of it."""


def test_the_variants_of_the_table_of_experiments_exist():
    table = re.findall(
        r"^\| \[\w+\]\(experiments/.*\| (.*) \|$", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    variants = {name for cell in table for name in inline(cell) if re.fullmatch(r"\w+", name)}
    assert len(variants) > 15
    assert variants <= {path.stem for path in (ROOT / "conf/variant").iterdir()}


def test_a_help_text_names_sections_that_exist():
    named = 0
    for verb in VERBS:
        text = " ".join(
            importlib.import_module(f"harness.cli.verbs.{verb}").make_parser().format_help().split()
        )
        for document, section in re.findall(r"\((docs/\w+\.md)(?:: ([^)]+))?\)", text):
            named += 1
            assert not section or f"## {section}\n" in (ROOT / document).read_text()
    assert named >= 2


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Return a checkout in which the README's variant was trained beside mha."""
    folder = make_checkout(tmp_path_factory.mktemp("trained"))
    add_logs(folder)
    make_files(folder)
    done = run_there(folder, "sweep", *TRAINING_WORDS)
    assert done.returncode == 0, done.stderr
    assert "mine against mha" in done.stdout
    return folder


def called_words(command: Command) -> list[str]:
    """Return the words that are called: training becomes a dry run, and the demo's sweep the one here."""
    _, verb, *words = command.words
    if verb in TRAINING:
        return ["sweep", *words, *["--dry-run"] * ("--dry-run" not in words)]
    return [verb, *(word.replace("runs/attention", TRAINED) for word in words)]


SERVED = "--web"
"""Option that serves until Ctrl-C: tests/web/test_watch_web.py calls it."""
CALLED = [
    command
    for command in VERB_COMMANDS
    if SERVED not in command.words and not any("://" in word or "URL" in word for word in command.words)
]


@pytest.mark.slow
@pytest.mark.parametrize("command", CALLED, ids=ids(CALLED))
def test_a_command_runs_as_it_is_printed(command, trained):
    done = run_there(trained, *called_words(command))
    if missing := [MISSING[text] for text in (*command.words, command.text) if text in MISSING]:
        assert (done.returncode != 0, missing[0] in done.stderr) == (True, True), done.stderr
    else:
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_member_of_colossus2_is_in_its_sweep(trained):
    assert "1t/gqa" in run_there(trained, "sweep", "experiment=colossus2", "--dry-run").stdout
