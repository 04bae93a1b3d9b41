"""A question is found by its name, stands beside its control, and is imported from everywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.config import users_modules
from harness.config.compose import compose, sweep_configs
from harness.config.pair_check import undeclared_differences
from harness.config.variants import question_files
from harness.config.variants.question_files import read_questions
from harness.core.errors import UserError
from harness.core.hashing import flatten

OWN = ("a", "b", "on_a")


def write_question(folder: Path, name: str, more: str = "", socket: str = "attention") -> None:
    file = folder / socket / f"{name}.yaml"
    file.parent.mkdir(exist_ok=True)
    head = f"# @package _global_\n# Z9b a title\n# y = x\n# Source: 1234.56789\nvariant: {{name: {name}, "
    file.write_text(head + "touches: [model.norm_epsilon]}\n" + more)


@pytest.fixture
def questions(tmp_path, monkeypatch):
    """A folder of questions instead of the shipped one."""
    write_question(tmp_path, "a", "model: {norm_epsilon: 1e-5}\nimports: [my.a]\n")
    write_question(tmp_path, "b", "imports: [my.a, my.b]\n", "norm")
    write_question(tmp_path, "on_a", "model: {norm_epsilon: 1e-4}\nrule: {control: a}\n")
    monkeypatch.setattr(question_files, "QUESTIONS", tmp_path)
    question_files.question_files.cache_clear()
    yield tmp_path
    question_files.question_files.cache_clear()


def variants(configs):
    first = configs[0].scale.name, configs[0].seed
    return [config.variant.name for config in configs if (config.scale.name, config.seed) == first]


def test_an_experiment_asks_a_question_beside_its_control_at_two_scales(questions):
    configs = sweep_configs(["experiment=question", "question=a"])
    assert variants(configs) == ["control", "a"]
    assert len(configs) == 2 * 2 * 3
    assert {config.scale.name for config in configs} == {"s", "m"}
    assert {config.experiment_name for config in configs} == {"question_a"}
    assert {config.rule.control for config in configs} == {"control"}
    assert {tuple(config.imports) for config in configs} == {("my.a",)}
    control, question = configs[:2]
    assert undeclared_differences(control, question) == {}
    assert (control.model.norm_epsilon, question.model.norm_epsilon) == (1e-6, 1e-5)


def test_the_control_is_the_plain_run(questions):
    (plain,) = sweep_configs(["scale=xs", "seed=0"])
    control, _ = sweep_configs(["question=a", "scale=xs", "seed=0"])
    free = ("variant.", "rule.", "experiment_name", "imports")
    one, other = flatten(plain), flatten(control)
    assert {key for key in one if one[key] != other[key] and not key.startswith(free)} == set()


def test_questions_share_a_control_and_all_modules(questions):
    configs = sweep_configs(["question=a,b", "scale=xs", "seed=0", "imports=[mine]", "experiment_name=x"])
    assert variants(configs) == ["control", "a", "b"]
    assert {tuple(config.imports) for config in configs} == {("mine", "my.a", "my.b")}
    assert {config.experiment_name for config in configs} == {"x"}


def test_a_question_names_another_as_its_control(questions):
    configs = sweep_configs(["question=on_a", "scale=xs", "seed=0"])
    assert variants(configs) == ["a", "on_a"]
    assert {config.rule.control for config in configs} == {"a"}
    assert {tuple(config.imports) for config in configs} == {("my.a",)}


def test_every_question_may_be_meant(questions):
    assert variants(sweep_configs(["question=glob(*,exclude=on_*)", "scale=xs", "seed=0"])) == [
        "control", "a", "b",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["experiment=question"], "experiment=question: add question=NAME; `harness questions` lists the"),
        (["question=a,on_a"], "their controls differ (a, control). Start a command for each control."),
        (["question=a", "variant=mha,gqa"], "question=a: variant has several values too"),
        (["question=a", "variant=mha,gqa", "experiment=question"], "Give variant one value"),
        (["question=on_b"], "question=on_b: no such choice; did you mean 'on_a'?"),
        (["question=a,on_b"], "question=on_b: no such choice; did you mean 'on_a'?"),
        (["question=a", "optimizer.b1=0.8,0.9"], "optimizer.b1 and question both have several values"),
    ],
)
def test_what_is_no_question_is_refused(questions, overrides, message):
    with pytest.raises(UserError) as raised:
        sweep_configs(overrides)
    assert message in str(raised.value)


def test_one_run_of_a_question(questions):
    config = compose(["question=a"])
    assert (config.variant.name, config.imports) == ("a", ["my.a"])


def test_a_name_that_stands_twice_is_refused(questions):
    write_question(questions, "a", socket="norm")
    question_files.question_files.cache_clear()
    with pytest.raises(UserError, match=r"norm/a.yaml: .*attention/a.yaml has this name too"):
        question_files.question_files()


def test_the_header_says_what_is_asked(questions):
    (questions / "norm" / "b.py").write_text("")
    by_name = {question.name: question for question in read_questions()}
    b = by_name["b"]
    assert (b.row, b.title, b.summary, b.source) == ("Z9", "a title", "y = x", "1234.56789")
    assert (b.socket, b.module, by_name["a"].module) == ("norm", questions / "norm" / "b.py", None)


@pytest.mark.parametrize("head", ["", "# R7 a title\n", "# a title\n# y = x\n# Source: s\n"])
def test_a_header_that_is_not_complete_is_refused(questions, head):
    (questions / "norm" / "b.yaml").write_text(f"# @package _global_\n{head}variant: {{name: b}}\n")
    with pytest.raises(UserError, match=r"b.yaml: the header is not complete. Below `# @package"):
        read_questions()


PROBE = """
import importlib, sys
from harness.config.users_modules import find_modules
names = sys.argv[1:]
find_modules(names)
print([importlib.import_module(name).__file__ for name in names])
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module that ships as a question, in a folder instead of the shipped one."""
    file = tmp_path / "experiments" / "questions" / "attention" / "mine.py"
    file.parent.mkdir(parents=True)
    file.write_text("")
    monkeypatch.setattr(users_modules, "QUESTIONS", file.parents[1])
    return "experiments.questions.attention.mine"


def test_the_file_of_a_question_alone_counts_as_its_source(module):
    file = users_modules.QUESTIONS / "attention" / "mine.py"
    assert users_modules.source_paths([module]) == [file]
    assert users_modules.origin_of(module) == str(file)
    assert users_modules.question_file("experiments.questions") is None
    assert users_modules.question_file("my.experiments.questions.attention.mine") is None


def test_a_question_is_imported_beside_experiments_of_another_project(tmp_path):
    shipped = next(q for q in read_questions() if q.module)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").write_text("")
    (tmp_path / "experiments" / "mine.py").write_text("")
    names = [f"experiments.questions.{shipped.socket}.{shipped.name}", "experiments.mine"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROBE, *names], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    mine = tmp_path / "experiments" / "mine.py"
    assert done.stdout.strip() == str([str(shipped.module), str(mine)])
