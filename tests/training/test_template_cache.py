"""A state whose like was saved before is saved without Orbax, and a wrong template is not believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from orbax.checkpoint.experimental import v1 as ocp

from harness.core.atomic_files import CorruptFile
from harness.core.cache.cache_dir import cache_dir
from harness.core.cache.cache_entries import CacheEntry
from harness.records.run.checkpoint_manifest import valid_steps
from harness.training.output import template_cache
from harness.training.output.template_cache import KIND, load_template
from tests.training.test_checkpoint_template import Saver, abstract, assert_same, some_state

pytestmark = pytest.mark.usefixtures("own_cache")


def entries() -> list[Path]:
    return [*cache_dir(KIND).iterdir()]


def test_orbax_restores_the_first_save_of_a_later_attempt(tmp_path):
    assert Saver(tmp_path / "first").save_all(some_state(0)) == [1]
    states = some_state(1), some_state(2)
    saver = Saver(tmp_path / "other")
    assert saver.save_all(*states) == []
    assert valid_steps(saver.run) == ([1, 2], [])
    for step, state in enumerate(states, 1):
        path = str(saver.run.checkpoint(step))
        assert_same(ocp.load_checkpointables(path, {"state": abstract(state)})["state"], state)
    success = saver.run.checkpoint(1) / "commit_success.txt"
    assert success.read_text().endswith(str(saver.run.checkpoint(1)))


def test_what_is_stored_is_what_was_read(tmp_path):
    saver = Saver(tmp_path / "run")
    saver.save_all(some_state(0))
    assert load_template(some_state(1)) == saver._template
    assert len(entries()) == 1


@pytest.mark.parametrize("change", ["shape", "dtype", "name", "device", "version", "type"])
def test_another_structure_has_another_entry(tmp_path, monkeypatch, change):
    Saver(tmp_path / "first").save_all(some_state(0))
    state = some_state(1)
    if change == "shape":
        state["w"]["zero"] = jnp.zeros((2, 3))
    elif change == "dtype":
        state["w"]["zero"] = jnp.zeros((2, 2), jnp.int32)
    elif change == "name":
        state["w"]["null"] = state["w"].pop("zero")
    elif change == "device":
        state = jax.device_put(state, jax.devices()[1])
    elif change == "version":
        monkeypatch.setattr(template_cache.metadata, "version", lambda _: "0.1")
    else:
        state["optimizer"] = [*state["optimizer"]]
    saver = Saver(tmp_path / "run")
    assert saver.save_all(state) == [1]
    restored = ocp.load_checkpointables(str(saver.run.checkpoint(1)), {"state": abstract(state)})
    assert_same(restored["state"], state)


def spoil(entry: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a stored template under its own checksum, as a mistake of ours would."""
    inputs = json.loads(entry.read_bytes().split(b"\n")[1])["inputs"]
    stored = CacheEntry(KIND, "", inputs)
    content = stored.read_json()
    assert content, "the same inputs have the same entry"
    change(content)
    stored.write_json(content)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["endings"].__setitem__(0, "00" * 20),
        lambda content: content["headers"].pop("w.mask/zarr.json"),
        lambda content: content["keys"].reverse(),
    ],
)
def test_a_template_that_is_wrong_vouches_for_nothing_and_is_used_once(tmp_path, change):
    Saver(tmp_path / "first").save_all(some_state(0))
    (entry,) = entries()
    spoil(entry, change)
    saver = Saver(tmp_path / "run")
    with pytest.raises(CorruptFile, match="just saved"):
        saver.save_all(some_state(1))
    assert valid_steps(saver.run) == ([], [])
    again = Saver(tmp_path / "run")
    assert again.save_all(some_state(1)) == [1]
    assert valid_steps(saver.run) == ([1], [])


def test_a_damaged_entry_is_named_and_made_again(tmp_path, capsys):
    Saver(tmp_path / "first").save_all(some_state(0))
    (entry,) = entries()
    content = bytearray(entry.read_bytes())
    content[-9] ^= 1
    entry.write_bytes(content)
    assert Saver(tmp_path / "run").save_all(some_state(1)) == [1]
    assert f"{entry} is damaged" in capsys.readouterr().err
    assert Saver(tmp_path / "other").save_all(some_state(1)) == []


def test_a_cache_that_cannot_be_used_leaves_the_save_to_orbax(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "file"))
    assert Saver(tmp_path / "run").save_all(some_state(0), some_state(1)) == [1]


def test_an_array_on_several_devices_has_no_entry(tmp_path):
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
    state = {"w": jax.device_put(jnp.arange(8.0), jax.NamedSharding(mesh, jax.P()))}
    for name in ("first", "other"):
        assert Saver(tmp_path / name).save_all(state) == [1]
    assert not entries()
