"""Config files of a user: those that the documents show, copied literally, and those with a mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from harness.config.compose import run_hydra, sweep_configs
from harness.config.schema.run import Config
from harness.core.errors import UserError
from harness.core.hashing import flatten
from tests.docs.checkout import shown_files

NEEDED = {"member": ["roster=replica"]}
"""Overrides without which a file of a group cannot be chosen."""


SHOWN = [*shown_files()]
NAMED = [item for item in SHOWN if item[1].endswith((".yaml", ".py"))]  # a log is compared, not chosen


def write_file(folder: Path, file: str, content: bytes) -> Path:
    """Write a file into a user's conf folder, and return its path."""
    path = folder / "conf" / Path(*Path(file).parts[-2:])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def compose_file(folder: Path, file: str, content: str | bytes) -> Config:
    """Write a file of a user's conf folder, and compose the run, or the first of a sweep, that chooses it."""
    path = write_file(folder, file, content if isinstance(content, bytes) else content.encode())
    chosen = [f"{path.parent.name}={path.stem}", *NEEDED.get(path.parent.name, ())]
    words = [f"hydra.searchpath=[file://{folder}/conf]", *chosen]
    if path.parent.name == "experiment":
        return sweep_configs(words)[0]
    configs: list[Config] = []
    run_hydra(words, configs.append)
    return configs[0]


def test_every_config_file_that_a_document_shows_is_named_before_it():
    assert {file for _, file, _ in NAMED} >= {
        "conf/variant/mine.yaml", "conf/member/1t_c.yaml", "ideas/variant/retention.yaml", "retention.py",
    }  # fmt: skip
    assert [item for item in SHOWN if not item[1] and "@package" in item[2]] == []


@pytest.mark.parametrize(("document", "file", "text"), NAMED, ids=[file for _, file, _ in NAMED])
def test_a_file_of_a_document_works_as_it_is(document, file, text, tmp_path):
    if file.endswith(".py"):
        compile(text, f"{document}: {file}", "exec")
        return
    for _, other_file, other_text in (item for item in NAMED if item[0] == document):
        if other_file.endswith(".yaml"):  # one file may choose another
            write_file(tmp_path, other_file, other_text.encode())
    config, content = compose_file(tmp_path, file, text), OmegaConf.to_container(OmegaConf.create(text))
    assert isinstance(content, dict)
    for node in ("defaults", "hydra"):  # which say what is composed, and what is swept
        content.pop(node, None)
    if "@package _global_" not in text:
        content = {Path(file).parent.name: content}
    with_content = OmegaConf.merge(OmegaConf.structured(config), content)
    assert flatten(OmegaConf.to_object(with_content)) == flatten(config)


@pytest.mark.parametrize("head", ["# a comment\n# @package _global_\n", "\ufeff# @package _global_\n", ""])
def test_a_package_that_is_not_in_the_first_line_is_named(head, tmp_path):
    with pytest.raises(UserError) as raised:
        compose_file(tmp_path, "variant/mine.yaml", head + "model: {width: 32}\n")
    assert str(raised.value).startswith("variant/mine.yaml: variant.")
    assert "Make `# @package _global_` the first line of the file, above every comment." in str(raised.value)


def test_the_same_in_an_experiment(tmp_path):
    with pytest.raises(UserError, match=r"experiment/mine.yaml: .*Make `# @package _global_` the first line"):
        compose_file(tmp_path, "experiment/mine.yaml", "# why\n# @package _global_\nexperiment_name: x\n")


def test_a_mistyped_key_is_still_a_mistyped_key(tmp_path):
    with pytest.raises(UserError, match=r"variant.nmae: no such key; did you mean 'variant.name'"):
        compose_file(tmp_path, "variant/mine.yaml", "nmae: mine\n")


HEAD = "# @package _global_\nvariant:\n"
UNREADABLE = {
    "a tab": (f"{HEAD}\tname: mine\n", ", line 3, column 1: found character '\\t'", "Indent with spaces"),
    "a later tab": (f"{HEAD}  name: mine\n\ttouches: []\n", ", line 4, column 1: ", "Indent with spaces"),
    "a key twice": (f"{HEAD}  name: a\n  name: b\n", ", line 4, column 3: found duplicate key", "Correct"),
    "an open bracket": (f"{HEAD}  touches: [a\n", ", line 4, column 1: ", "Correct the YAML there."),
    "a control character": (f"{HEAD}  name: \x07\n", ": not YAML (", "plain text"),
    "latin-1": (f"{HEAD}  name: é\n".encode("latin-1"), ": not UTF-8 at byte 38", "Save the file as UTF-8."),
    "a long header": ("# @package _global_ x\nvariant: {name: a}\n", ": Too many components", "first line"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "place", "way_out"), UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_file_is_one_sentence_with_its_place(content, place, way_out, tmp_path):
    with pytest.raises(UserError) as raised:
        compose_file(tmp_path, "variant/mine.yaml", content)
    message = str(raised.value)
    assert message.startswith(f"{tmp_path}/conf/variant/mine.yaml{place}")
    assert way_out in message
    assert "\n" not in message


def test_line_ends_of_windows_are_read(tmp_path):
    assert (
        compose_file(
            tmp_path, "variant/mine.yaml", f"{HEAD}  name: mine\n".replace("\n", "\r\n")
        ).variant.name
        == "mine"
    )


def test_errors_of_a_task_keep_their_type():
    def raise_value_error(_: Config) -> None:
        raise ValueError("ours")

    with pytest.raises(ValueError, match="ours"):
        run_hydra([], raise_value_error)


def test_an_own_file_that_is_not_searched_is_named_with_the_way_out(tmp_path, monkeypatch):
    compose_file(tmp_path, "variant/mine.yaml", f"{HEAD}  name: mine\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"conf/variant/mine.yaml is not searched. Add 'hydra.searchpath"):
        run_hydra(["variant=mine"], print)
    configs: list[Config] = []
    run_hydra(["variant=mine", "hydra.searchpath=[file://conf]"], configs.append)
    assert configs[0].variant.name == "mine"
