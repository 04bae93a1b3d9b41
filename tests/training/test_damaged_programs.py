"""Compiled programs that are damaged, or crash their worker, are compiled again, and a sentence says so."""

import dataclasses

import pytest

from harness.core.cache.cache_entries import CacheEntry
from harness.records.run.status import ProcessInfo, State, Status, read_status, write_status
from tests.training.runs import curve, prepare, train


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache, monkeypatch):
    monkeypatch.setenv("AB_HARNESS_CACHE", str(cache))


@pytest.fixture(scope="module")
def undisturbed(cache, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AB_HARNESS_CACHE", str(cache))
        run = prepare(tmp_path_factory.mktemp("undisturbed"), "scale.tokens=2048")
        assert train(run) is State.finished
    return run


@pytest.fixture
def stored(monkeypatch):
    """Names of the programs that were stored."""
    names, write = [], CacheEntry.write

    def note(entry, content):
        names.extend([entry.name] * (entry.kind == "programs"))
        write(entry, content)

    monkeypatch.setattr(CacheEntry, "write", note)
    return names


def test_a_flipped_bit_in_a_program_is_told_at_the_end_and_changes_nothing(undisturbed, cache, tmp_path):
    (path,) = (cache / "programs").glob("step-*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    again = prepare(tmp_path, "scale.tokens=2048")
    assert train(again) is State.finished
    assert curve(again).equals(curve(undisturbed))
    assert f"{path} is damaged" in read_status(again).message


@pytest.mark.parametrize("loss", [None, 3.0])
def test_an_attempt_that_died_before_its_first_step_has_its_programs_set_aside(
    loss, undisturbed, stored, tmp_path
):
    again = prepare(tmp_path, "scale.tokens=2048")
    died = Status(State.running, attempt=1, loss=loss, writer=ProcessInfo.current())
    write_status(again, dataclasses.replace(died, phase="train"))
    assert train(again) is State.finished
    assert curve(again).equals(curve(undisturbed))
    assert stored == (["init", "step", "evaluate"] if loss is None else [])
    assert ("compiled again" in read_status(again).message) == (loss is None)
