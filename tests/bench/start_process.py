"""One process of a run that starts and does not train: `python -m tests.bench.start_process RUN_DIR`.

Prints, as JSON, the bytes of the state that its devices hold, and the most memory that it ever had."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from harness.config.process_group import from_env as processes_from_env
from harness.records.paths import RunDir
from harness.worker import main as worker


def main(path: str) -> None:
    """Join the group, compile, make the state of step 0, and leave."""
    task = worker._read_prepared_run(RunDir(Path(path)))
    processes = processes_from_env(os.environ)
    rendezvous = worker._join_group(processes, [task]) if processes else None
    worker._prepare_process([task], {}, rendezvous)
    import jax

    from harness.parallel.processes.agreement import broadcast_from_primary
    from harness.parallel.processes.jax_distributed import shutdown
    from harness.training.parent_checkpoint import rebuild_model
    from harness.training.programs.run_programs import make_run_programs

    def no_batch(t: int) -> Any:
        raise LookupError(t)

    model = rebuild_model(task.config, task.provenance.facts)
    programs = make_run_programs(task.config, model, jax.devices(), no_batch, {})
    programs.prepare()
    compiled, began = _peak_bytes(), time.time()
    state = jax.block_until_ready(programs.init_state())
    shards = [shard.data.nbytes for leaf in jax.tree.leaves(state) for shard in leaf.addressable_shards]
    figures = {
        "parameters": task.provenance.parameters, "share": sum(shards), "compiled": compiled,
        "peak": _peak_bytes(), "seconds": time.time() - began, "processor": sum(os.times()[:2]),
    }  # fmt: skip
    print(json.dumps(figures), flush=True)
    if rendezvous is not None:
        broadcast_from_primary(lambda: None)
        shutdown(rendezvous)


def _peak_bytes() -> int:
    """Most resident memory of this process so far, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main(sys.argv[1])
