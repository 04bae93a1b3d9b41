"""Child of a fork server, which tells what it was given."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence

from harness.launcher.engines.local.fork_client import PRELOAD


def main(arguments: Sequence[str], env: Mapping[str, str]) -> int:
    [wanted] = arguments
    if wanted == "raises":
        raise ValueError("as told")
    if wanted == "sleeps":
        print(os.getpid(), flush=True)
        time.sleep(600)
    if wanted == "sees":
        bridge = sys.modules.get("jax._src.xla_bridge")
        seen = {
            "env": dict(env),
            "cores": sorted(os.sched_getaffinity(0)),
            "stdin": os.readlink("/proc/self/fd/0"),
            "missing": [name for name in PRELOAD if name not in sys.modules],
            "backends": [*bridge._backends] if bridge else [],
            "users": [name for name in sys.modules if name.partition(".")[0] == "experiments"],
        }
        print(json.dumps(seen))
        return 0
    return 7
