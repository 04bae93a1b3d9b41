"""CPU seconds to trace, lower and compile a step: `python -m tests.bench.depth LAYERS SCAN`."""

import json
import os
import sys
import time

from harness.config.compose import compose
from harness.core.jax_setup.cpu_flags import cpu_env

SHAPE = ("model.width=256", "model.heads=4", "model.head_width=64", "model.ffn=704", "scale.batch=4")


def main(layers: int, scan: str) -> None:
    os.environ.update(cpu_env(1))
    import jax

    from harness.aot.train_step import step_factory, trace_step
    from harness.parallel.sharding.mesh import lane_mesh

    config = compose([*SHAPE, f"model.layers={layers}", f"compute.scan_layers={scan}"])
    factory = step_factory(config)
    specs = factory(lane_mesh(jax.devices()[:1], config.mesh))
    start = time.process_time()
    trace_step(specs).lower().compile()
    print(json.dumps({"seconds": time.process_time() - start}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
