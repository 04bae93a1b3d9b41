"""A worker that writes down which accelerators it may see, and then holds them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from harness.config.process_group import INDEX_VARIABLE


def main(argv: list[str], env: dict[str, str]) -> int:
    os.environ.update(env)
    text = json.dumps(os.environ.get("CUDA_VISIBLE_DEVICES"))
    draft = Path(env["SHOWN"] + env.get(INDEX_VARIABLE, "")).with_name(f"draft{os.getpid()}")
    draft.write_text(text)
    draft.rename(env["SHOWN"] + env.get(INDEX_VARIABLE, ""))
    time.sleep(60)
    return 0
