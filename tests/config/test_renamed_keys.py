"""Renamed config keys: old files are the same runs, old overrides are answered with the new key."""

from __future__ import annotations

import hashlib
import json

import pytest
import yaml

from harness.config.compose import compose
from harness.config.pair_check import identity_difference
from harness.config.renamed_keys import RENAMED, renamed_key_message, with_first_names, with_new_names
from harness.config.run_identity import VOLATILE, identity
from harness.core.errors import UserError
from harness.core.hashing import to_plain
from harness.records.run.config_file import read_config

OLD = {
    "ladder": {"name": "frontier", "vocabulary": 3, "image": None},
    "compute": {"layers": "scanned", "remat": "none", "precision": "bfloat16", "microbatches": 1},
    "finetune": {"method": "frozen", "layers": 2},
    "optimizer": {"name": "adamw", "z_loss": 0.25},
    "data": {"name": "d", "unlabelled": 0.2},
    "cluster": {"kinds": {"h100": {"fast_domain": 8, "fast_gb_s": 1, "slow_gb_s": 2, "device_years": 3}}},
    "variant": {"name": "a", "touches": ["compute.precision", "model.attention"]},
}
NEW = {
    "roster": {"name": "frontier", "vocabulary": 3, "image": None},
    "compute": {"scan_layers": True, "remat": "none", "dtype": "bfloat16", "microbatches": 1},
    "finetune": {"method": "last_layers", "trainable_layers": 2},
    "optimizer": {"name": "adamw"},
    "loss": {"z_loss": 0.25},
    "data": {"name": "d", "label_dropout": 0.2},
    "cluster": {
        "kinds": {
            "h100": {"scale_up_domain": 8, "scale_up_gb_s": 1, "scale_out_gb_s": 2, "mtbf_device_years": 3}
        }
    },
    "variant": {"name": "a", "touches": ["compute.dtype", "model.attention"]},
}


def test_both_directions_are_the_whole_table():
    assert with_new_names(OLD) == NEW
    assert with_first_names(NEW) == OLD
    assert with_new_names(NEW) == NEW


def test_the_identity_is_hashed_over_the_first_names():
    config = compose(["variant=lora", "finetune.parent=runs/x"])
    old = with_first_names({k: v for k, v in to_plain(config).items() if k not in VOLATILE})
    assert "precision" in old["compute"]
    assert "z_loss" in old["optimizer"]
    assert "loss" not in old
    text = json.dumps(old, sort_keys=True, separators=(",", ":"))
    assert identity(config) == hashlib.sha256(text.encode()).hexdigest()


def test_a_key_that_the_first_version_did_not_have_counts_once_it_is_set():
    plain, capped = compose([]), compose(["model.logit_softcap=30"])
    assert "logit_softcap" not in with_first_names(to_plain(plain))["model"]
    assert with_first_names(to_plain(capped))["model"]["logit_softcap"] == 30
    assert identity(plain) != identity(capped)


def test_a_file_with_old_keys_is_the_same_config(tmp_path):
    config = compose(["compute.scan_layers=true", "loss.z_loss=0.5", "finetune.method=none"])
    config.scale.learning_rate = None  # the first version's files have no recipe
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(with_first_names(to_plain(config))))
    assert "z_loss" in yaml.safe_load(path.read_text())["optimizer"]
    assert to_plain(read_config(path)) == to_plain(config)


@pytest.mark.parametrize(
    ("override", "answer"),
    [
        ("ladder=frontier", "write roster=frontier"),
        ("compute.layers=scanned", "write compute.scan_layers=true"),
        ("compute.precision=bfloat16", "write compute.dtype=bfloat16"),
        ("finetune.method=frozen", "write finetune.method=last_layers"),
        ("finetune.layers=2", "write finetune.trainable_layers=2"),
        ("optimizer.z_loss=0.1", "write loss.z_loss=0.1"),
        ("data.unlabelled=0.2", "write data.label_dropout=0.2"),
    ],
)
def test_an_old_override_is_answered_with_the_new_key(override, answer):
    with pytest.raises(UserError, match=answer) as caught:
        compose([override])
    assert "was renamed" in str(caught.value)


@pytest.mark.parametrize("key", RENAMED, ids=lambda key: key.old)
def test_every_renamed_key_has_an_answer(key):
    old = key.old.replace("*", "h100")
    value = next(iter(key.values), "")
    message = renamed_key_message(old, value)
    assert message is not None
    assert key.new.replace("*", "h100") in message


def test_what_null_says_today_is_what_a_run_of_the_first_version_was(tmp_path):
    today, before = compose([]), compose(["compute.scan_layers=false"])
    before.scale.learning_rate = None
    assert identity(today) == identity(before)
    assert identity_difference(before, today) == ""
    assert identity(compose(["compute.scan_layers=true"])) != identity(today)
