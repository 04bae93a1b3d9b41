"""Processes that try questions: each imports JAX once and tries many, and its death costs one question."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO

from harness.core.jax_setup.cpu_flags import cpu_env
from tests.questions.results import Trial
from tests.quick_compiles import compile_quickly

LIMIT_SECONDS = 300
"""Time after which a question counts as one that does not end."""
ROOT = Path(__file__).parents[2]


def try_all(names: Sequence[str], workers: int, report: Callable[[Trial], None]) -> list[Trial]:
    """Try every question in `workers` processes. `report` gets each result as it comes."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in names:
        waiting.put(name)
    trials: list[Trial] = []
    lock = threading.Lock()

    def add(trial: Trial) -> None:
        with lock:
            trials.append(trial)
            report(trial)

    threads = [threading.Thread(target=_try_waiting, args=(waiting, add)) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return trials


def _try_waiting(waiting: queue.SimpleQueue[str], add: Callable[[Trial], None]) -> None:
    """Try questions until none waits, in one process for as long as it lives."""
    while not waiting.empty():
        with tempfile.TemporaryFile("w+") as errors, _start_process(errors) as process:
            while process.poll() is None and (name := _next_name(waiting)):
                answer = _ask(process, name)
                add(answer or Trial(name, _last_words(process, errors), "", 0.0))


def _next_name(waiting: queue.SimpleQueue[str]) -> str:
    try:
        return waiting.get_nowait()
    except queue.Empty:
        return ""


def _start_process(errors: IO[str]) -> subprocess.Popen[str]:
    env = os.environ | cpu_env(1)
    compile_quickly(env)
    command = [sys.executable, "-m", "tests.questions.pool"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=env, stdin=pipe, stdout=pipe, stderr=errors, text=True)


def _ask(process: subprocess.Popen[str], name: str) -> Trial | None:
    """Return the result of a question; None if the process dies of it."""
    assert process.stdin
    assert process.stdout
    timer = threading.Timer(LIMIT_SECONDS, process.kill)
    timer.start()
    try:
        process.stdin.write(f"{name}\n")
        process.stdin.flush()
        answer = process.stdout.readline()
    except BrokenPipeError:
        return None
    finally:
        timer.cancel()
    return Trial(**json.loads(answer)) if answer else None


def _last_words(process: subprocess.Popen[str], errors: IO[str]) -> str:
    status = process.wait()
    errors.seek(0)
    last = errors.read().strip().rpartition("\n")[2]
    return f"its process ended with status {status}: {last}"


def _answer_questions() -> None:
    """Print the result of each name that comes, as a line of JSON. All else is printed to standard error."""
    answers, sys.stdout = sys.stdout, sys.stderr
    from tests.questions.trial import try_question

    for line in sys.stdin:
        print(json.dumps(asdict(try_question(line.strip()))), file=answers, flush=True)


if __name__ == "__main__":
    _answer_questions()
