"""`python -m harness.aot REQUEST.json`: print one JSON line for each config of a `protocol.CompileRequest`.

A line is a `protocol.CompileStats` or `{"error": SENTENCE}`. Each line is printed at once, so that earlier
results survive if a later compilation crashes or times out.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from harness.aot.protocol import CompileRequest, Target
from harness.config.schema.run import Config
from harness.core.errors import UserError
from harness.core.hashing import to_plain
from harness.core.jax_setup.cpu_flags import cpu_env
from harness.records.run.config_file import read_config

CPU_ENV = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
"""Constants are computed on this CPU. XLA_FLAGS is empty: another version's compiler may reject our flags."""

OFFLINE_TPU_ENV = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
"""Skip the metadata query for this machine's TPU, and let several such processes run at once."""


def main(argv: list[str]) -> int:
    """Analyze every config of the request file `argv[0]`. Returns exit status 2 for a bad request, else 0."""
    try:
        request = read_request(Path(argv[0]))
        configs = [read_config(Path(path)) for path in request.configs]
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    os.environ.update(_environment(request.target, max(config.mesh.devices for config in configs)))
    for config in configs:
        print(json.dumps(_analyze(config, request)), flush=True)
    return 0


def read_request(path: Path) -> CompileRequest:
    """Read a request file. Raises UserError if it cannot be read or has an unknown target."""
    try:
        content = json.loads(path.read_text())
        target, configs = Target(content["target"]), tuple(content["configs"])
        return CompileRequest(target, configs, content.get("topology", ""))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a valid request: {type(error).__name__}: {error}") from error


def _environment(target: Target, devices: int) -> dict[str, str]:
    """Return the variables to set before JAX is imported. `devices`: the largest device count of a config."""
    if target in (Target.abstract, Target.cpu):
        return cpu_env(devices if target is Target.cpu else 1)
    return CPU_ENV | (OFFLINE_TPU_ENV if target is Target.tpu else {})


def _analyze(config: Config, request: CompileRequest) -> dict[str, Any]:
    """Return the stats of one config, or one sentence under `error`; other tracebacks go to stderr."""
    from harness.aot.backends import ANALYZERS
    from harness.aot.train_step import executed_flops, step_factory

    try:
        factory = step_factory(_on_target(config, request.target))
        stats = ANALYZERS[request.target](factory, request.topology)
        flops = executed_flops(factory) / config.mesh.devices
        return to_plain(dataclasses.replace(stats, executed_flops=flops))
    except UserError as error:
        return {"error": str(error)}
    except Exception as error:
        traceback.print_exc()
        message = next(iter(str(error).strip().splitlines()), "no message")
        return {"error": f"{request.target.value}: {type(error).__name__}: {message[:400]}"}


def _on_target(config: Config, target: Target) -> Config:
    """Return a config on the platform that its step is compiled for, which decides its kernels."""
    if target is Target.abstract:
        return config
    return dataclasses.replace(config, cluster=dataclasses.replace(config.cluster, platform=target.value))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
