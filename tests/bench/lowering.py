"""Seconds to lower and propagate the largest planned step over fsdp N x tensor 32 x expert 256."""

import json
import os
import sys

from harness.config.compose import compose
from harness.core.jax_setup.cpu_flags import cpu_env


def main(fsdp: int) -> None:
    os.environ.update(cpu_env(1))
    from harness.aot.backends import analyze_abstract
    from harness.aot.train_step import step_factory

    mesh = [f"mesh.fsdp={fsdp}", "mesh.tensor=32", "mesh.expert=256", f"scale.batch={256 * fsdp}"]
    found = analyze_abstract(
        step_factory(compose(["roster=frontier", "member=10t", "cluster=colossus2", *mesh])), ""
    )
    print(json.dumps({"devices": found.devices, "seconds": found.seconds}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
