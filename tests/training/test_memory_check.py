"""A lane that does not fit says so before its first step; one that would fit later waits for its turn."""

import threading
import time
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from harness.core.errors import UserError
from harness.core.number_format import format_bytes
from harness.records.run.status import State, read_status
from harness.training.output.checkpointer import restore
from harness.training.programs import compile_cache
from harness.training.programs.memory_check import MemoryBudget, MemoryNeed, memory_need
from harness.training.run import train_run
from tests.training.runs import assignment, curve, lane, prepare

MEBI = 2**20


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("memory"), "schedule.branches=[]")


def bytes_of(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def test_the_need_is_what_arrays_say_of_themselves(run):
    """State and copy against the arrays; the step holds at least the gradients and the logits."""
    here = lane(run)
    need, state = memory_need(here), here.abstract_state()
    assert need.state == pytest.approx(bytes_of(state), rel=0.01)
    assert need.copy == pytest.approx(bytes_of(state), rel=0.01)
    rows = here.config.scale.batch * here.config.data.sequence_length
    assert need.scratch > bytes_of(state.params) + 4 * rows * here.model.shape.vocabulary
    assert (need.devices, need.total) == (1, need.per_device)


def test_a_program_from_the_cache_says_the_same(run, monkeypatch):
    loaded = []
    real = compile_cache.load_stored

    def load(*arguments):
        loaded.append(real(*arguments))
        return loaded[-1]

    monkeypatch.setattr(compile_cache, "load_stored", load)
    one, other = memory_need(lane(run)), memory_need(lane(run, 4))
    assert one == other
    assert all(each is not None for each in loaded[-3:]), "nothing was loaded: nothing is tested"


@pytest.mark.slow
def test_more_devices_need_less_each(tmp_path):
    wide = prepare(tmp_path, "schedule.branches=[]", "mesh.fsdp=2", "variant.name=wide")
    narrow = memory_need(lane(prepare(tmp_path, "schedule.branches=[]")))
    assert memory_need(lane(wide)).state == pytest.approx(narrow.state / 2, rel=0.05)


def room(free, limit=None, patience=60.0):
    return MemoryBudget(lambda: free, lambda: limit if limit is not None else free, patience)


def test_what_never_fits_is_refused_with_the_numbers_and_trained_once_it_does(run, tmp_path):
    tight = prepare(tmp_path)
    need = memory_need(lane(tight)).within(0)
    state = train_run(assignment(tight), lane(tight), threading.Event(), room(need.total - 1))
    message = read_status(tight).message
    assert state is State.refused
    assert message.startswith(
        f"needs {format_bytes(need.per_device)} a device, but has {format_bytes(need.total - 1)} "
        "(1 simulated device on "
    )
    assert "By the estimate of a plan, compute.remat=full needs" in message
    assert "\n" not in message
    assert not (tight.path / "metrics").exists()
    assert train_run(assignment(tight), lane(tight), threading.Event(), room(need.total)) is State.finished
    assert "saves wait for the disk" in tight.log.read_text()
    restored = restore(tight, 30, lane(tight).abstract_state())
    (tmp_path / "roomy").mkdir()
    roomy = prepare(tmp_path / "roomy")
    assert (
        train_run(assignment(roomy), lane(roomy), threading.Event(), room(10 * need.total)) is State.finished
    )
    assert "saves wait" not in roomy.log.read_text()
    same = restore(roomy, 30, lane(roomy).abstract_state())
    assert all(map(np.array_equal, jax.tree.leaves(restored), jax.tree.leaves(same)))
    assert curve(tight).equals(curve(roomy))


def test_a_real_device_is_asked_for_its_own_limit(run):
    here = lane(run)
    need = memory_need(here)
    device = SimpleNamespace(memory_stats=lambda: {"bytes_limit": limit}, device_kind="chip")
    fake: Any = SimpleNamespace(
        prepare=here.prepare,
        abstract_state=here.abstract_state,
        config=here.config,
        devices=[device],
        local_devices=[device],
    )
    limit = need.within(0).per_device - 1
    with pytest.raises(UserError, match=r"\(chip\): state"), room(0).reserve(fake, lambda: None):
        pass
    for size, copy in ((limit + 1, 0), (need.per_device - 1, 0), (need.per_device, need.copy)):
        limit = size
        with room(0).reserve(fake, lambda: None) as reserved:
            assert reserved.copy == copy


def test_a_lane_waits_while_others_of_its_process_hold_the_memory(run):
    need = memory_need(lane(run))
    shared, told, inside = room(1.5 * need.total), [], threading.Event()

    def second():
        with shared.reserve(lane(run, 1), lambda: told.append(time.monotonic())):
            inside.set()

    with shared.reserve(lane(run), lambda: pytest.fail("it fits")):
        other = threading.Thread(target=second)
        other.start()
        deadline = time.monotonic() + 60
        while not told:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not inside.is_set()
    assert inside.wait(60)
    other.join()


@pytest.mark.slow
def test_two_that_wait_for_each_other_train_one_after_the_other(tmp_path):
    runs = [prepare(tmp_path, f"variant.name={name}", "schedule.branches=[]") for name in ("one", "two")]
    shared = room(1.5 * memory_need(lane(runs[0])).total)
    states = {}

    def work(index):
        states[index] = train_run(
            assignment(runs[index]), lane(runs[index], index), threading.Event(), shared
        )

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states == {0: State.finished, 1: State.finished}
    assert curve(runs[0]).equals(curve(runs[1]))


def test_what_others_hold_is_waited_for_a_while_and_left_when_told_to(run, tmp_path):
    need = memory_need(lane(run))
    with pytest.raises(UserError, match="needs"), room(0, need.total, 0.0).reserve(lane(run), lambda: None):
        pass
    lean = need.within(0)
    with room(lean.total, need.total, 0.0).reserve(lane(run), lambda: None) as reserved:
        assert reserved == lean
    stop = threading.Event()
    stop.set()
    waits = prepare(tmp_path)
    assert train_run(assignment(waits), lane(waits), stop, room(0, need.total)) is State.preempted


def test_sizes_are_written_as_people_do():
    assert [format_bytes(n) for n in (12, 2048, 3.1 * 2**30, 2**45)] == [
        "12 bytes",
        "2.0 KiB",
        "3.1 GiB",
        "32.0 TiB",
    ]
    need = MemoryNeed(2 * MEBI, 2 * MEBI, MEBI, 0, 2)
    assert (need.per_device, need.total) == (5 * MEBI, 10 * MEBI)
    assert need.message(MEBI, "here").startswith(
        "needs 5.0 MiB a device, but has 1.0 MiB (here): state 2.0 MiB"
    )


def test_the_message_blames_the_program_that_needs_most():
    step, evaluation = (MemoryNeed(MEBI, MEBI, *sizes, 1).message(0.0, "here") for sizes in ((3, 2), (2, 3)))
    assert step.endswith("state 1.0 MiB, step 3 bytes.")
    assert evaluation.endswith("state 1.0 MiB, evaluation 3 bytes.")


def test_an_evaluation_needs_less_than_a_step_however_often_gradients_are_accumulated(tmp_path):
    """The held-out rows go through in micro-batches, not in batches of 64."""
    sizes = ("schedule.branches=[]", "scale.batch=64", "compute.microbatches=16")
    need = memory_need(lane(prepare(tmp_path, *sizes)))
    assert need.evaluation < need.step
    whole = memory_need(lane(prepare(tmp_path, *sizes[:2], "variant.name=whole")))
    assert need.evaluation < whole.evaluation / 4
