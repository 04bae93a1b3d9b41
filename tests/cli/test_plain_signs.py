"""Output on terminals of ASCII and latin-1, and of names and texts that hold control characters."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import pytest
from rich.console import Console

import harness
from harness import cli
from harness.cli.plain_signs import PLAIN
from harness.core.errors import UserError, printable
from harness.launcher.workers.progress import LineDisplay, ending_text
from harness.records.run.status import State, Status
from tests.cli.support import run
from tests.compare.synthetic import Recipe, write_sweep

C_LOCALE = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    variants = {"mha": 1.0, "größe_中": 1.04}
    return write_sweep(tmp_path_factory.mktemp("runs") / "trial", Recipe(variants=variants)).path


def plain(text: str, encoding: str) -> str:
    signs = (letter if encodable(letter, encoding) else PLAIN.get(letter, letter) for letter in text)
    return "".join(signs).encode(encoding, "backslashreplace").decode(encoding)


def encodable(letter: str, encoding: str) -> bool:
    return ord(letter) < {"ascii": 128, "latin-1": 256}[encoding]


@pytest.mark.parametrize("options", [[], ["--markdown"]])
def test_every_line_of_the_verdict_is_printed_and_nothing_is_lost(options, sweep, tmp_path):
    arguments = ("compare", str(sweep), *options)
    _, wanted, _ = run(*arguments, folder=tmp_path, COLUMNS="140")
    assert "größe" in wanted
    for encoding in ("ascii", "latin-1"):
        status, text, err = run(*arguments, folder=tmp_path, COLUMNS="140", PYTHONIOENCODING=encoding)
        assert (status, err) == (0, "")
        assert text.split() == plain(wanted, encoding).split()


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (("compare", "SWEEP"), 0, "dL [95 % CI]"),
        (("watch", "SWEEP"), 0, "18 runs, 100% done"),
        (("plan", "variant=mha"), 0, "parameters"),
        (("sweep", "--dry-run"), 0, "Nothing was written or trained."),
        (("compare", "größe"), 2, r"gr\xf6\xdfe is not a sweep"),
    ],
)
def test_every_verb_prints_in_a_locale_without_utf8(arguments, status, sentence, tmp_path):
    folder = write_sweep(tmp_path / "trial").path
    words = [str(folder) if word == "SWEEP" else word for word in arguments]
    code, out, err = run(*words, folder=tmp_path, seconds=120, **C_LOCALE)
    assert code == status
    assert sentence in out + err


def test_each_sign_of_the_package_has_a_plain_form():
    signs = set()
    for room in ("cli", "compare", "launcher", "plan", "report/tables", "records"):
        for file in (Path(harness.__file__).parent / room).rglob("*.py"):
            nodes = (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant))
            texts = [node.value for node in nodes if isinstance(node.value, str)]
            signs |= {letter for text in texts for letter in text if ord(letter) > 127}
    assert signs <= PLAIN.keys()
    assert all(form.isascii() for form in PLAIN.values())


BAD = "a\x1b[2J\x07\r\x9bb\u202ec\u2028\udcff"
SHOWN = r"a\x1b[2J\x07\r\x9bb\u202ec\u2028\udcff"


def test_control_characters_are_printed_as_escapes():
    assert printable(BAD) == SHOWN
    assert printable("größe\n\t中\u00a0🚀 \u200d") == "größe\n\t中\u00a0🚀 \u200d"
    assert str(UserError(f"{BAD}: no such key.\n  Forged line")) == f"{SHOWN}: no such key. Forged line"


def test_error_sentences_cannot_act_on_the_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "conf"
    (folder / "variant").mkdir(parents=True)
    text = '# @package _global_\nvariant: {name: bad, touches: []}\n"a\\e]0;x\\ab": 1\n'
    (folder / "variant" / "bad.yaml").write_text(text)
    commands = [
        ["compare", "runs/\x1b[2Jx"],
        ["\x1b[2Jcompare"],
        ["sample", "\x1b[2Jx"],
        ["diff", "a", "b", "--\x1b[2Jx"],
        ["sweep", "--\x1b[2Jx"],
        ["sweep", "seed.\x1b[2Jx=1"],
        ["train", f"hydra.searchpath=[file://{folder}]", "variant=bad"],
    ]
    for command in commands:
        assert cli.main(command) == 2
        err = capsys.readouterr().err
        assert "\\x1b" in err
        assert printable(err) == err
        assert err.count("\n") == 1


def test_the_message_of_a_failed_run_cannot_act_on_the_terminal():
    output = io.StringIO()
    display = LineDisplay([], Console(file=output))
    display.note("xs/mha/seed0: \x1b[2Jboom; it is started again")
    display.note(ending_text(Status(State.failed, message="\x1b[2Jboom")))
    assert output.getvalue().count("\\x1b[2Jboom") == 2
    assert printable(output.getvalue()) == output.getvalue()


def test_sampled_text_cannot_act_on_the_terminal(capsys, monkeypatch):
    from types import SimpleNamespace

    from harness.inspection import sample_text
    from harness.records.run import find_checkpoint

    facts = SimpleNamespace(provenance=SimpleNamespace(facts=SimpleNamespace(shape={}, has_images=False)))
    monkeypatch.setattr(find_checkpoint, "find_checkpoint", lambda _: facts)
    monkeypatch.setattr(sample_text, "sample", lambda *_, **__: "one\n\ttwo \x1b[2J中")
    assert cli.main(["sample", "runs/x"]) == 0
    assert capsys.readouterr().out == "one\n\ttwo \\x1b[2J中\n"
