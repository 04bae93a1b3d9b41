"""Trains the runs it is given, side by side: `python -m harness.worker RUN_DIR...`.

The one entry point of every engine. Each run gets a lane, a sub-mesh of this process's devices,
and a thread; lanes never wait for each other. The directories hold everything (config.yaml,
run.json), so nothing is pickled and any machine that sees them can do the work.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.config.errors import UserError
from harness.config.identity import digest
from harness.config.schema import Config
from harness.describe import import_modules
from harness.parallel.profile import cpu_profile, keep_memory
from harness.records.configs import read_config
from harness.records.layout import RunDir
from harness.records.provenance import read_provenance
from harness.records.status import State, Status, Writer, write_status

if TYPE_CHECKING:
    from harness.data import Gallery, HeldOut, Reader
    from harness.training.run import Assignment

INCOMPLETE = 3
"""Exit status when a run is left that the same command would train further."""


def main(argv: list[str], env: Mapping[str, str] | None = None) -> int:
    """Train the runs in `argv`; 0 if each reached an end that stands, 3 if not, 2 for a user's mistake.

    `env` is set before any backend exists: in a fork server's child jax is imported already, but
    has no devices yet.
    """
    try:
        tasks = [_assignment(RunDir(Path(path).resolve())) for path in argv]
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    _prepare_process(tasks, env or {})
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, lambda *_: stop.set())
    try:
        states = _train(tasks, stop)
    except UserError as error:
        for task in tasks:
            write_status(task.run, Status(State.refused, message=str(error), writer=Writer.here()))
        print(error, file=sys.stderr)
        return 2
    return 0 if all(state.settled for state in states) else INCOMPLETE


def _assignment(run: RunDir) -> Assignment:
    from harness.training.run import Assignment

    provenance = read_provenance(run)
    if provenance is None or not run.config.exists():
        raise UserError(f"{run.path}: no run.json and config.yaml that fit: `harness sweep` prepares them")
    return Assignment(run, read_config(run.config), provenance)


def _prepare_process(tasks: list[Assignment], env: Mapping[str, str]) -> None:
    """Device count and flags, fixed for the life of this process."""
    total = sum(task.config.mesh.devices for task in tasks)
    if tasks[0].config.cluster.platform == "cpu":
        env = cpu_profile(total) | dict(env)
        keep_memory()
    os.environ.update(env)
    import jax

    # Programs are kept in a cache of our own; what JAX's gives back cannot be serialised again.
    jax.config.update("jax_enable_compilation_cache", False)
    if "JAX_NUM_CPU_DEVICES" in env:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", int(env["JAX_NUM_CPU_DEVICES"]))
    import_modules(tasks[0].config)


def _train(tasks: list[Assignment], stop: threading.Event) -> list[State]:
    """One thread a run; the batches of runs that read the same are gathered once."""
    import jax

    from harness.training.base import rebuilt
    from harness.training.lane import open_lane
    from harness.training.run import train_run

    readers: dict[str, tuple[Reader, Mapping[str, HeldOut], Gallery | None]] = {}
    devices, lanes = list(jax.devices()), []
    for task in tasks:
        key = _reading(task.config)
        if key not in readers:
            readers[key] = _open_reader(task.config)
        reader, heldout, gallery = readers[key]
        mine, devices = devices[: task.config.mesh.devices], devices[task.config.mesh.devices :]
        model = rebuilt(task.config, task.provenance.facts)
        lanes.append(open_lane(task.config, model, mine, reader.get, heldout, gallery))
    states = [State.failed] * len(tasks)

    def work(index: int) -> None:
        states[index] = train_run(tasks[index], lanes[index], stop)

    threads = [
        threading.Thread(target=work, args=(i,), name=str(task.run.path)) for i, task in enumerate(tasks)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for reader, *_ in readers.values():
        reader.close()
    return states


def _reading(config: Config) -> str:
    """Runs with this key in common consume the same batches."""
    return digest([config.data, config.data_seed, config.scale.batch])


def _open_reader(config: Config) -> tuple[Reader, Mapping[str, HeldOut], Gallery | None]:
    from harness.data import ImageCorpus, Reader, open_data

    corpus = open_data(config.data)
    reader = Reader(corpus.sampler(config.scale.batch, config.data_seed))
    gallery = corpus.gallery(config.evaluation.tokens) if isinstance(corpus, ImageCorpus) else None
    return reader, corpus.heldout(config.evaluation.tokens), gallery


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
