"""A W&B that does what HOSTILE says: hangs, raises, or dies."""

import os
import signal
import time
from typing import Any


def Settings(**settings: Any) -> dict[str, Any]:
    return settings


def init(**settings: Any) -> None:
    match os.environ["HOSTILE"]:
        case "hang":
            time.sleep(1000)
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
    raise ConnectionError("no W&B today")


def teardown() -> None:
    pass
