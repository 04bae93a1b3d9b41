"""Tokenising for `harness tokenize`: the sources are found, tokenised here or by tasks, and summed up."""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from collections.abc import Sequence

from harness.cli.exit_status import FAILED, INTERRUPTED
from harness.cli.json_output.json_text import json_text
from harness.cli.verbs.tokenize.array_tasks import TaskRequest, run_tasks
from harness.cli.verbs.tokenize.chosen_configs import chosen_configs
from harness.cli.views.progress_line import ProgressLine
from harness.config.schema.run import Config
from harness.core.cache.cache_dir import check_cache_writable
from harness.core.errors import UserError, printable
from harness.core.number_format import format_bytes, format_count, plain_text
from harness.launcher.sweep_lock import Interrupted, stop_on_signal
from harness.launcher.workers.task_array import TasksFailed
from harness.worker.tokenize_sources import (
    NamedSource,
    OpenedSource,
    TokenizeTask,
    WorkState,
    compare_sets,
    fetch_sources,
    find_sources,
    open_sources,
)

DEFAULT_TASKS = 4
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_EXPONENTS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def make_tokens(options: argparse.Namespace) -> int:
    """Tokenise what the options name, and print what there is. Return the exit status. Raises UserError."""
    task = TokenizeTask(options.processes, options.memory and _parse_size(options.memory))
    configs = chosen_configs(options)
    by_tasks = configs[0].engine.name != "local"
    _check(options, by_tasks)
    check_cache_writable()
    try:
        with stop_on_signal():
            sources = find_sources(configs)
        if by_tasks and any(entry.source.needs_build() for entry in sources):
            _tokenize_by_tasks(configs, sources, _request(options, configs[0], task))
            if options.no_wait:
                return 0
        with stop_on_signal(), ProgressLine() as line:
            opened = open_sources(sources, task, line.show)
            compare_sets(configs, line.show)
    except TasksFailed as error:
        print(printable(error), file=sys.stderr)
        return FAILED
    except (Interrupted, KeyboardInterrupt):
        print("Stopped. The same command continues.", file=sys.stderr)
        return INTERRUPTED
    as_json = options.json and json_text("tokenize", {"sources": opened})
    print(as_json or "\n".join(map(_sentence, opened)))
    return 0


def _check(options: argparse.Namespace, by_tasks: bool) -> None:
    for name in ("processes", "tasks"):
        if (number := getattr(options, name)) is not None and number < 1:
            raise UserError(f"--{name}={number}: give 1 or more")
    if not by_tasks and (options.tasks is not None or options.no_wait):
        option = "--no-wait" if options.tasks is None else f"--tasks={options.tasks}"
        raise UserError(f"{option}: name the engine of the tasks, with engine=slurm or engine=ray")


def _request(options: argparse.Namespace, config: Config, task: TokenizeTask) -> TaskRequest:
    """Return the tasks that the options ask for: each with the CPUs of a device of Slurm, or with one."""
    cpus = task.processes or (config.engine.slurm.cpus if config.engine.name == "slurm" else 1)
    resources = dataclasses.replace(task, processes=cpus, joins=True)
    return TaskRequest(options.tasks or DEFAULT_TASKS, cpus, resources, waits=not options.no_wait)


def _tokenize_by_tasks(
    configs: Sequence[Config], sources: Sequence[NamedSource], request: TaskRequest
) -> None:
    with ProgressLine() as line:
        with stop_on_signal():
            state = WorkState(fetch_sources(sources, line.show))
        folder = run_tasks(configs, request, lambda: state.show(line.show), line.note)
        if not request.waits:
            state.show(line.note)
            line.note(f"{request.count} tasks are submitted; their logs are in {folder}.")


def _sentence(source: OpenedSource) -> str:
    tokens = (
        f"{format_count(source.train_tokens)} training and {format_count(source.heldout_tokens)} held-out"
    )
    text = f", {format_bytes(source.text_bytes)} of text" if source.text_bytes else ""
    speed = f" at {format_bytes(source.bytes_per_second)}/s" if source.bytes_per_second else ""
    documents = f"{source.documents:,} document{'s' * (source.documents != 1)}"
    return plain_text(f"{source.path}: {documents}, {tokens} tokens{text}{speed}, in {source.folder}")


def _parse_size(text: str) -> float:
    """Return the bytes of a size such as 1GiB or 512M. Raises UserError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or not float(match[1]):
        raise UserError(f"--memory={text}: give a size such as 1GiB or 512MiB")
    return float(match[1]) * 2.0 ** _EXPONENTS[match[2].upper()]
