"""Every mistake of a command line is one sentence, status 2, and no traceback."""

from __future__ import annotations

import pytest

from harness import cli
from harness.config.compose import compose, run_hydra
from harness.core.errors import UserError

MISTAKES = {
    "modle.width=3": "modle.width=3: no such key; did you mean 'model.width'?",
    "model.widht=3": "model.widht=3: no such key; did you mean 'model.width'?",
    "modle=3": "modle=3: no such key; did you mean 'model'?",
    "+foo=1": "foo: no such key; valid: checkpoint, ",
    "seed=abc": "seed=abc: not a whole number",
    "optimizer.learning_rate=fast": "optimizer.learning_rate=fast: not a number",
    "engine.isolation=blok": "engine.isolation=blok: no such choice; did you mean 'block'?",
    "variant=hybird": "variant=hybird: no such choice; did you mean 'hybrid'?",
    "scale=": "scale=: no such choice; valid: ",
    "~variant": "variant.name has no value. Choose one with variant=...",
    "variant=null": "variant=null: null is not an option of variant; valid: ",
    "+experiment=attention": "the group experiment exists already. Write experiment=attention",
    "experiment=nope": "experiment=nope: no such choice; ",
    "foo": "foo: not readable as KEY=VALUE. Write a key and a value",
    "attention": "attention: not readable as KEY=VALUE. Write experiment=attention.",
    "scale=xs,": "scale=xs,: the list ends with a comma. Write its values without spaces: scale=xs,...",
    "runs=proj [A]": "once for the shell and once for Hydra: \"runs='proj [A]'\"",
    "data.sources.prose.weigth=3": "data.sources.prose.weigth=3: no such key; did you mean 'weight'?",
    "model.attention.options.window=3": (
        "not set this option yet. Add it with +model.attention.options.window=3"
    ),
    "data.sources.more={path:x}": "data.sources.more: the command line cannot add a source. ",
    "+data.sources.more.path=x": "data.sources.more: the command line cannot add a source. ",
    "evaluation.sets.new.path=x": "evaluation.sets.new: the command line adds all sets at once. ",
    "+evaluation.sets.new.path=x": "'+evaluation.sets={new:{path:FILE}}'",
    "+evaluation.sets={new:{pat:x}}": "(beside path: column, format and options)",
}


@pytest.mark.parametrize(("override", "sentence"), MISTAKES.items())
def test_a_mistake_is_one_sentence_that_names_the_way_out(override, sentence):
    with pytest.raises(UserError) as raised:
        compose([override])
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


SWEEPS = {
    "seed=interval(0,1)": "a sweep needs a finite list of values. Write seed=a,b,c",
    "variant=mha,hybird": "variant=hybird: no such choice; did you mean 'hybrid'?",
    "experiment=attention,other": "each experiment is a separate sweep",
    "experiment_name=a,b": "one command trains one experiment",
}


@pytest.mark.parametrize("override", [*MISTAKES, *SWEEPS])
def test_the_command_answers_in_one_line_with_status_2(override, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sweep", override]) == 2
    out, err = capfd.readouterr()
    assert (SWEEPS | MISTAKES)[override] in err
    assert len(err.strip().splitlines()) == 1, err
    assert out == ""


def test_several_values_for_one_run_point_to_the_sweep(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "seed=0,1"]) == 2
    assert "Use `harness sweep`" in capfd.readouterr().err


def test_a_bug_of_ours_is_not_dressed_up_as_a_mistake(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def broken(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_hydra([], broken)


def test_a_wrong_key_in_a_file_of_the_user_is_named(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "variant").mkdir(parents=True)
    text = "# @package _global_\nvariant:\n  name: own\nmodel:\n  widht: 3\n"
    (tmp_path / "mine" / "variant" / "own.yaml").write_text(text)
    assert cli.main(["sweep", f"hydra.searchpath=[file://{tmp_path}/mine]", "variant=own"]) == 2
    assert capfd.readouterr().err.startswith(
        "variant/own.yaml: model.widht: no such key; did you mean 'model.width'?"
    )


def test_a_searchpath_that_is_not_there_is_one_sentence(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sweep", "hydra.searchpath=[file://mine]", "variant=own"]) == 2
    assert capfd.readouterr().err == "hydra.searchpath: mine does not exist. Give [file://FOLDER].\n"
