"""Restoring a checkpoint against reading its bytes.

`python -m tests.bench.restore FOLDER MEGABYTES` prints JSON, a list by round: seconds of `save`, `restore`
and `read` (of the same files), the last two with the files out of the page cache, as after a move to another
host.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from harness.core.jax_setup.cpu_flags import cpu_env

os.environ.update(cpu_env(1))

import jax
import jax.numpy as jnp
import numpy as np

from harness.config.schema.run import CheckpointConfig
from harness.records.paths import RunDir
from harness.records.run.checkpoint_manifest import Manifest
from harness.training.output.checkpointer import Checkpointer, restore

ROUNDS = 7


def main(run: RunDir, megabytes: int) -> None:
    drawn = np.random.default_rng(0).standard_normal((megabytes, 250_000), np.float32)
    state = {f"layer{index}": jnp.asarray(each) for index, each in enumerate(drawn)}
    saver, times = Checkpointer(run, CheckpointConfig()), {"save": [], "restore": [], "read": []}
    for step in range(1, 4):
        times["save"].append(seconds(lambda step=step: save(saver, state, step)))
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    files = [path for path in run.checkpoint(3).rglob("*") if path.is_file()]
    for _ in range(ROUNDS):
        for name, action in (
            ("restore", lambda: jax.block_until_ready(restore(run, 3, abstract))),
            ("read", lambda: [path.read_bytes() for path in files]),
        ):
            forget(files)
            times[name].append(seconds(action))
    print(json.dumps(times))


def save(saver: Checkpointer, state: dict[str, jax.Array], step: int) -> None:
    saver.save(state, Manifest(step, "bench", "bench", "", 0.0, {}))
    saver.wait()


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def forget(files: list[Path]) -> None:
    """Out of the page cache."""
    for path in files:
        with path.open("rb") as file:
            os.fsync(file)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main(RunDir(Path(sys.argv[1])), int(sys.argv[2]))
