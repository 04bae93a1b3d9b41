"""A run in the stages of a pipeline trains as on one device, and either reads the other's checkpoints."""

import jax
import numpy as np
import pytest

from harness.records.run.status import State
from harness.training.output.checkpointer import restore
from harness.training.step_inputs import StepInputs
from tests.training.runs import curve, lane, prepare, train

LAYERS = (
    "model.layers=4",
    "model.width=32",
    "model.heads=2",
    "model.ffn=64",
    "compute.scan_layers=true",
    "compute.microbatches=2",
    "schedule.branches=[]",
)
STAGES = ("mesh.pipeline=2", "mesh.data=2", "mesh.tensor=2", "variant.name=stages")


def states(run, *lanes):
    """The last checkpoint of a run on the devices of other lanes, as arrays of the host."""
    restored = [restore(run, 30, each.abstract_state()) for each in lanes]
    return [[np.asarray(leaf) for leaf in jax.tree.leaves(state)] for state in restored]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_stages_train_as_one_device_and_share_checkpoints(tmp_path, optimizer):
    run = prepare(tmp_path, *LAYERS, *STAGES, f"optimizer={optimizer}")
    single = prepare(tmp_path, *LAYERS, "variant.name=single", f"optimizer={optimizer}")
    assert train(run) is train(single) is State.finished
    # Sums are taken in another order: the bits differ, and thirty steps let that grow.
    for kind in ("steps", "evals"):
        np.testing.assert_allclose(curve(run, kind)["loss"], curve(single, kind)["loss"], rtol=2e-4)
    wide, narrow = lane(run), lane(single)
    assert wide.mesh.shape["pipeline"] == 2
    for path, spec in wide.abstract_state().params.items():
        assert (spec.sharding.shard_shape(spec.shape)[0] == 2) == path.startswith("repeats"), path
    for written in (run, single):
        for one, other in zip(*states(written, wide, narrow), strict=True):
            assert np.array_equal(one, other)
    # A step from the same checkpoint on both meshes.
    batch = wide.get_batch(30)
    inputs = StepInputs(1e-3)
    losses = [
        np.asarray(each.step(restore(run, 30, each.abstract_state()), each.put_batch(batch), inputs)[1])[0]
        for each in (wide, narrow)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)
