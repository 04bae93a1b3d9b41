"""The command in a process of its own, in a clean environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

SOURCE = str(Path(__file__).parents[2])


def clean_env(**changes: str) -> dict[str, str]:
    """Return the environment without the flags for JAX that these tests run under."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("JAX", "XLA"))}
    return kept | {"PYTHONPATH": SOURCE} | changes


def start(*arguments: str, folder: Path, **changes: str) -> subprocess.Popen[str]:
    """Start the command in a session of its own, where Ctrl-C is not ignored. It prints `ready` first."""
    code = "import sys; from harness.cli import main; print('ready', flush=True); sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        **_settings(folder, changes),
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run(*arguments: str, folder: Path, seconds: float = 120, **changes: str) -> tuple[int, str, str]:
    """Return the exit status, the output and the errors of the command, which has so many seconds."""
    command = [sys.executable, "-m", "harness", *arguments]
    done = subprocess.run(command, **_settings(folder, changes), timeout=seconds, check=False)
    return done.returncode, done.stdout, done.stderr


def _settings(folder: Path, changes: dict[str, str]) -> dict[str, Any]:
    pipe, encoding = subprocess.PIPE, "latin-1" if "latin-1" in changes.values() else "utf-8"
    return {"cwd": folder, "env": clean_env(**changes), "stdout": pipe, "stderr": pipe, "encoding": encoding}
