"""The bits of a run do not depend on where, beside whom, or in which process it is trained."""

import dataclasses
import threading
import time

import jax
import numpy as np
import pytest

from harness.config.worker_options import WorkerOptions
from harness.core.atomic_files import read_json
from harness.data import Reader, open_data
from harness.data import readers as reader_module
from harness.data.readers import SharedReaders
from harness.records.run.config_file import read_config
from harness.records.run.status import State, read_status
from harness.training.output import checkpointer, orbax_state
from harness.training.programs import memory_check
from harness.training.run import train_run
from harness.worker import main
from tests.training.processes import on_one_core, on_one_thread
from tests.training.runs import assignment, curve, lane, prepare, train

HUGE = memory_check.MemoryNeed(10**18, 0, 0, 0, 1)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    run = prepare(tmp_path_factory.mktemp("alone"))
    assert train(run) is State.finished
    return run


def examples(run):
    return read_json(run.path / "examples.json")


def train_side_by_side(runs):
    """As a worker does: a thread a lane, one reader for all."""
    config = read_config(runs[0].config)
    reader = Reader(open_data(config.data).sampler(config.scale.batch, config.data_seed))
    lanes = [lane(run, index, reader) for index, run in enumerate(runs)]
    for each in lanes:
        each.prepare()  # lanes that compile start apart, and the one behind has batches gathered again
    states = {}

    def work(index):
        states[index] = train_run(assignment(runs[index]), lanes[index], threading.Event())

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(runs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return list(states.values()), reader


def test_beside_siblings_and_on_another_device(alone, tmp_path):
    variants = ("mha", "hybrid", "gqa")
    window = "model.attention.options={cycle: [{name: window, options: {window: 8}}, {name: mha}]}"
    extra = {"hybrid": [window], "gqa": ["model.heads=2"]}
    runs = [prepare(tmp_path, f"variant={name}", *extra.get(name, [])) for name in reversed(variants)]
    states, reader = train_side_by_side(runs)
    assert states == [State.finished] * 3
    gqa, hybrid, mha = runs
    assert curve(mha).equals(curve(alone))
    assert not curve(hybrid).equals(curve(alone))
    assert examples(gqa) == examples(hybrid) == examples(alone)
    assert reader.num_gathered < 2 * 30


def train_in_turn(runs, devices, **terms):
    """As a worker does, on the first `devices` of this process."""
    tasks = [assignment(run) for run in runs]
    return main._train_runs(
        tasks, WorkerOptions(devices=devices, backoff_seconds=0.01, **terms), threading.Event()
    )


def test_faults_of_lanes_in_one_process_leave_the_others_bitwise_alone(alone, tmp_path, monkeypatch):
    """One raises and is restarted, one diverges, one is refused; two blocks take turns on three devices."""
    raising, good = prepare(tmp_path, "variant.name=raising"), prepare(tmp_path)
    diverging = prepare(tmp_path, "variant.name=wild", "optimizer.learning_rate=1e30")
    refused = prepare(tmp_path, "scale.name=late", "variant.name=huge")
    late = prepare(tmp_path, "scale.name=late")
    real, times = Reader.get, []

    def get(self, t):
        if threading.current_thread().name == str(raising.path) and t == 20 and len(times) < 2:
            times.append(t)
            raise ValueError("a fault of this lane")
        return real(self, t)

    monkeypatch.setattr(Reader, "get", get)
    real_need = memory_check.memory_need

    def memory_need(lane):
        return HUGE if lane.config.variant.name == "huge" else real_need(lane)

    monkeypatch.setattr(memory_check, "memory_need", memory_need)
    states = train_in_turn([raising, good, diverging, refused, late], 3, attempts=3)
    assert states == [
        State.finished,
        State.finished,
        State.diverged,
        State.refused,
        State.finished,
    ]
    assert (read_status(raising).attempt, len(times)) == (3, 2)
    assert "a fault of this lane" in raising.log.read_text()
    assert "needs 909494.7 TiB a device" in read_status(refused).message
    for run in (raising, good, late):
        assert curve(run).equals(curve(alone))
        assert curve(run, "evals").equals(curve(alone, "evals"))
        assert examples(run) == examples(alone)


def test_readers_are_shared_and_closed_with_the_last_run_that_uses_them(tmp_path):
    config = read_config(prepare(tmp_path).config)
    other = dataclasses.replace(config, data_seed=9)
    library = SharedReaders()
    with library.open(config) as one:
        with library.open(config) as same, library.open(other) as another:
            assert same is one
            assert another.reader is not one.reader
        assert one.reader.get(0) is not None
        with pytest.raises(RuntimeError, match="closed"):
            another.reader.get(0)
    with pytest.raises(RuntimeError, match="closed"):
        one.reader.get(0)
    with library.open(config) as anew:
        assert anew.reader is not one.reader
        assert np.array_equal(anew.reader.get(3).tokens_BT, one.reader._sampler.batch(3).tokens_BT)


def test_no_lane_restores_while_another_saves(alone, tmp_path, monkeypatch):
    """Orbax confuses them (training.output.checkpointer)."""
    monkeypatch.setattr(checkpointer, "load_template", lambda _: None)
    monkeypatch.setattr(checkpointer, "read_template", lambda *_: None)
    busy, met = threading.Lock(), []
    save, load = orbax_state.ocp.save_checkpointables_async, orbax_state.ocp.load_checkpointables

    def enter(name):
        met.append((name, busy.acquire(blocking=False)))
        time.sleep(0.05)

    def loading(*arguments):
        enter("load")
        try:
            return load(*arguments)
        finally:
            busy.release()

    class Saving:
        """Until it is waited for."""

        def __init__(self, *arguments):
            enter("save")
            self._begun = save(*arguments)

        def result(self):
            self._begun.result()
            busy.release()

    monkeypatch.setattr(orbax_state.ocp, "load_checkpointables", loading)
    monkeypatch.setattr(orbax_state.ocp, "save_checkpointables_async", Saving)
    runs = [prepare(tmp_path, f"variant.name={name}") for name in ("one", "two", "three")]
    assert train_in_turn(runs, 3) == [State.finished] * 3
    assert {name for name, _ in met} == {"save", "load"}
    assert all(free for _, free in met)
    assert all(curve(run).equals(curve(alone)) for run in runs)


def test_a_reader_that_does_not_open_is_tried_again(tmp_path, monkeypatch):
    run, times = prepare(tmp_path), []
    real = reader_module._open_handle

    def open_handle(config, local_rows_B):
        times.append(config)
        if len(times) == 1:
            raise OSError("not yet")
        return real(config, local_rows_B)

    monkeypatch.setattr(reader_module, "_open_handle", open_handle)
    assert train_in_turn([run], 1, attempts=2) == [State.finished]


@pytest.mark.slow
@pytest.mark.parametrize("narrow", [on_one_core, on_one_thread])
def test_in_a_process_of_its_own_on_one_core(alone, tmp_path, narrow):
    """Slow, since only with `--optimized` both processes compile alike."""
    run = prepare(tmp_path)
    narrow("-m", "harness.worker", str(run.path))
    assert curve(run).equals(curve(alone))
    assert examples(run) == examples(alone)


def test_two_equal_variants_are_bitwise_equal_and_a_null_pair_is_not(alone, tmp_path):
    twin = prepare(tmp_path, "variant.name=twin")
    assert train(twin, first_device=2) is State.finished
    assert curve(twin).equals(curve(alone))
    null = prepare(tmp_path, "seed=1", "data_seed=0")
    assert train(null) is State.finished
    assert examples(null) == examples(alone)
    assert not curve(null).equals(curve(alone))


def test_shared_parameters_of_two_variants_start_equal(tmp_path):
    mha, gqa = prepare(tmp_path, "model.heads=2"), prepare(tmp_path, "variant=gqa", "model.heads=2")
    one, other = (lane(run).init_state().params for run in (mha, gqa))
    shared = [path for path in one if path in other and one[path].shape == other[path].shape]
    assert 0 < len(shared) < len(one)
    assert all(np.array_equal(one[path], other[path]) for path in shared)


@pytest.mark.slow
def test_eight_devices_train_as_one_within_rounding(alone, tmp_path):
    even = ("data.tokenizer=bpe512", "model.heads=2", "model.ffn=80", "scale.parameters=11904")
    run = prepare(tmp_path, "mesh.data=2", "mesh.fsdp=2", "mesh.tensor=2", *even)
    single = prepare(tmp_path, "variant.name=single", *even)
    assert train(run) is train(single) is State.finished
    # Sums are taken in another order: the bits differ, and thirty Adam steps let that grow.
    np.testing.assert_allclose(curve(run)["loss"], curve(single)["loss"], rtol=2e-4)
    assert len(jax.devices()) == 8


@pytest.mark.slow
def test_sequences_over_four_devices_train_as_on_one_within_rounding(tmp_path):
    run = prepare(tmp_path, "mesh.context=4", "data.mask_documents=true", "variant.name=parts")
    single = prepare(tmp_path, "data.mask_documents=true", "variant.name=single")
    assert train(run) is train(single) is State.finished
    np.testing.assert_allclose(curve(run)["loss"], curve(single)["loss"], rtol=2e-4)
    evals = [curve(each, "evals")["loss"] for each in (run, single)]
    np.testing.assert_allclose(*evals, rtol=2e-4)
