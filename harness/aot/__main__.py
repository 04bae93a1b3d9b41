"""`python -m harness.aot REQUEST.json`: a JSON line for each config of a `harness.aot.protocol.Request`.

A line is a `harness.aot.protocol.Seen`, or `{"error": SENTENCE}`. Lines come as they are found, so that what
was answered before a compiler died or took too long is not lost.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from harness.aot.backends import Compiler, compiler_of
from harness.aot.protocol import Request, Target
from harness.config.schema.run import Config
from harness.core.errors import UserError
from harness.core.hashing import plain
from harness.records.run.config_file import read_config


def main(argv: list[str]) -> int:
    try:
        request = read_request(Path(argv[0]))
        configs = [read_config(Path(path)) for path in request.configs]
        compiler = compiler_of(request.target)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    os.environ.update(compiler.environment(max(config.mesh.devices for config in configs)))
    for config in configs:
        print(json.dumps(_answer(compiler, config, request)), flush=True)
    return 0


def read_request(path: Path) -> Request:
    """Raises UserError where it says nothing that can be looked at."""
    try:
        content = json.loads(path.read_text())
        target, configs = Target(content["target"]), tuple(content["configs"])
        return Request(target, configs, content.get("topology", ""))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no request: {type(error).__name__}: {error}") from error


def _answer(compiler: Compiler, config: Config, request: Request) -> dict[str, Any]:
    """Whatever a compiler raises is its answer: one sentence, the traceback on stderr."""
    from harness.aot.train_step import executed_flops, specs_of

    try:
        make = specs_of(config)
        found = compiler.load()(make, request.topology)
        flops = executed_flops(make) / config.mesh.devices
        return plain(dataclasses.replace(found, executed_flops=flops))
    except UserError as error:
        return {"error": str(error)}
    except Exception as error:
        traceback.print_exc()
        said = next(iter(str(error).strip().splitlines()), "it says nothing")
        return {"error": f"{request.target.value}: {type(error).__name__}: {said[:400]}"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
