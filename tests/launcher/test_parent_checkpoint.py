"""A block starts from one checkpoint, and a description is of the checkpoint as it lies there."""

import dataclasses

import pytest

from harness.config.schema.finetune import FinetuneMethod
from harness.core.errors import UserError
from harness.launcher.runs import Run, make_blocks, run_dir, sweep_dir
from harness.launcher.stages.describe_runs import description_key
from tests.launcher.support import configs, facts

BASE = {"run": "/runs/parents/xs/mha/seed0", "name": "parents/xs/mha/seed0@9", "step": 9, "identity": "i"}


def block(runs, touches, checksums=("a", "b")):
    """Two variants of one seed, with the checksums of what they start from."""
    made = []
    for config, checksum in zip(configs(runs, seeds=(0,)), checksums, strict=True):
        config.variant.touches = touches
        told = dataclasses.replace(facts(config), base=checksum and BASE | {"checksum": checksum})
        made.append(Run(config, told, run_dir(sweep_dir([config]), config)))
    return made


@pytest.mark.parametrize("touches", [["model.attention"], ["model.attention", "finetune.method"]])
@pytest.mark.parametrize("checksums", [("a", "b"), ("a", None)])
def test_another_base_that_nobody_declares_is_refused(tmp_path, touches, checksums):
    with pytest.raises(UserError, match=r"different base .*declare 'finetune.parent'"):
        make_blocks(block(tmp_path, touches, checksums))


@pytest.mark.parametrize("node", ["finetune", "finetune.parent"])
def test_another_base_may_be_declared(tmp_path, node):
    assert len(make_blocks(block(tmp_path, ["model.attention", node]))) == 1


def test_one_base_is_no_difference(tmp_path):
    assert len(make_blocks(block(tmp_path, ["model.attention"], ("a", "a")))) == 1


@pytest.mark.parametrize("name", ["run.json", "status.json", "checkpoints/00000009.manifest.json"])
@pytest.mark.parametrize("step", ["", "@9"])
def test_a_description_is_asked_for_anew_when_the_parent_changed(tmp_path, name, step):
    parent = tmp_path / "parent"
    (parent / "checkpoints").mkdir(parents=True)
    config = configs(tmp_path)[0]
    config.finetune.method, config.finetune.parent = FinetuneMethod.full, f"{parent}{step}"
    before = description_key(config)
    assert description_key(config) == before
    (parent / name).write_text("something")
    assert description_key(config) != before
