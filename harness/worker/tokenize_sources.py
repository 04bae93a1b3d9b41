"""Tokenising of the sources of configs, in this process or as a task of an array.

`python -m harness.worker.tokenize_sources TASK.json` ends with status 0 once all is tokenised, by whomever,
with 2 and a sentence for a mistake of the user, and with 130 if it was asked to leave.
"""

from __future__ import annotations

import dataclasses
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.config.schema.run import Config
from harness.core import atomic_files
from harness.core.cache.cache_dir import cache_dir
from harness.core.errors import UserError, disk_error
from harness.core.hashing import hash_json
from harness.core.number_format import format_count
from harness.core.progress.report import reports_to
from harness.data.evaluation.validation_sets import find_sets, heldout_sets
from harness.data.order.mixture_schedule import trained_sources
from harness.data.shards.manifest import shards_folder
from harness.data.text.describe_text import check_text_config
from harness.data.text.training_source import TextSource, TrainingSource
from harness.data.tokenizing.build_shards import BuildLimits, BuildProgress
from harness.data.tokenizing.build_state import BuildState, BuiltAmount
from harness.records.run.config_file import read_config, write_config

USERS_MISTAKE, LEFT_EARLY = 2, 130
"""Exit statuses of a task; the launcher has them too (task_array)."""
LINE_SECONDS = 10.0
"""Seconds between two lines of a task's log."""
STATE_SECONDS = 1.0
"""Seconds between two readings of the folders that tasks fill."""
Show = Callable[[str], None]


@dataclass(frozen=True)
class OpenedSource:
    """A source whose tokens are all there."""

    name: str
    path: str
    documents: int
    train_tokens: int
    heldout_tokens: int
    text_bytes: int
    """0: not known, since the source holds tokens."""
    folder: str
    """Folder of the shards, or the one of all tokens."""
    seconds: float
    bytes_per_second: float
    """Speed at which text was tokenised; 0 if all was there."""


@dataclass(frozen=True)
class NamedSource:
    """A source of a config, or a validation set."""

    source: TrainingSource
    trained: bool
    """True unless it is only evaluated."""

    def open(self, limits: BuildLimits, show: Show) -> OpenedSource:
        """Open the tokens, building what is missing. Raises UserError."""
        start, speed = time.monotonic(), 0.0
        ratio = self.source.tokens_per_byte()

        def show_progress(progress: BuildProgress) -> None:
            nonlocal speed
            speed = progress.bytes_per_second
            show(progress_text(progress, round(ratio * progress.done_bytes), is_estimate=True))

        with reports_to(show):
            tokens = self.source.open(self.trained, dataclasses.replace(limits, show=show_progress))
            sizes = self.source.measure(self.trained)
        folder = shards_folder(tokens.key)
        return OpenedSource(
            name=self.source.name,
            path=self.source.source.path,
            documents=sizes.documents,
            train_tokens=len(tokens.train),
            heldout_tokens=len(tokens.heldout),
            text_bytes=sizes.train.bytes + sizes.heldout.bytes,
            folder=str(folder if folder.is_dir() else cache_dir("tokens")),
            seconds=time.monotonic() - start,
            bytes_per_second=speed,
        )


@dataclass(frozen=True)
class TokenizeTask:
    """Resources for tokenising."""

    processes: int | None
    """None: the cores, as far as memory allows."""
    memory: float | None
    """Bytes; None: half of what is free."""
    joins: bool = False
    """True for one of several tasks that share the work."""


def fetch_sources(sources: Sequence[NamedSource], show: Show) -> list[NamedSource]:
    """Return the sources with all their texts on this machine, fetching what is missing. Raises UserError."""
    with reports_to(show):
        return [
            dataclasses.replace(entry, source=entry.source.fetched())
            if isinstance(entry.source, TextSource)
            else entry
            for entry in sources
        ]


def open_sources(sources: Sequence[NamedSource], task: TokenizeTask, show: Show) -> list[OpenedSource]:
    """Open the tokens of all sources, building what is missing. Raises UserError."""
    limits = BuildLimits(task.processes, task.memory, joins=task.joins)
    return [entry.open(limits, show) for entry in sources]


def read_sources(configs: Sequence[Config], write: Show) -> None:
    """Tokenise the sources of configs that nobody has read yet, and compare their validation sets. Writes a
    line of progress from time to time. Raises UserError."""
    show = log_lines(write)
    open_sources(find_sources(configs), TokenizeTask(processes=None, memory=None), show)
    compare_sets(configs, show)


def compare_sets(configs: Sequence[Config], show: Show) -> None:
    """Compare the validation sets of all configs with their training text, unless that was done. Raises
    UserError for a set that stands there as a whole."""
    by_key = {hash_json([config.data, config.evaluation]): config for config in configs}
    with reports_to(show):
        for config in by_key.values():
            heldout_sets(config)


def find_sources(configs: Sequence[Config]) -> list[NamedSource]:
    """Return the sources and validation sets of all configs, each once. Raises UserError if there is none."""
    by_key: dict[str, NamedSource] = {}
    for config in configs:
        if config.data.kind == "text":
            by_key = dict(_sources_of(config)) | by_key
    if not by_key:
        kinds = sorted({config.data.kind for config in configs})
        raise UserError(f"data.kind={', '.join(kinds)}: only text is tokenised. Name a text.")
    return [*by_key.values()]


def _sources_of(config: Config) -> Iterator[tuple[str, NamedSource]]:
    """Yield the sources of a config, each with a key of all that decides its tokens."""
    trained, data = trained_sources(config.data), config.data
    tokenizer = [data.tokenizer, data.vocabulary, data.end_token, data.holdout]
    for source in check_text_config(data):
        node = dataclasses.replace(data.sources[source.name], weight=0.0)
        is_trained = source.name in trained
        yield hash_json([node, tokenizer, is_trained]), NamedSource(source, is_trained)
    for source in find_sets(config):
        yield (
            hash_json(["set", config.evaluation.sets[source.name], tokenizer]),
            NamedSource(source, trained=False),
        )


def progress_text(progress: BuildProgress, tokens: int, *, is_estimate: bool = False) -> str:
    """Return the state of a build in words."""
    return f"{progress}, {'about ' * is_estimate}{format_count(tokens)} tokens"


class WorkState:
    """State of the work that tasks share, from the cache folder, at most a second old."""

    def __init__(self, sources: Sequence[NamedSource]) -> None:
        texts = [entry.source for entry in sources if isinstance(entry.source, TextSource)]
        self._states = [BuildState(part, text.encoding) for text in texts for part in text.parts]
        sizes = [text.measure(trained=True) for text in texts]
        self._total = sum(size.train.bytes + size.heldout.bytes for size in sizes)
        self._name = ", ".join(text.name for text in texts)
        self._start = self._read_at = time.monotonic()
        self._before = self._amount = self._read()

    def show(self, show: Show) -> float:
        """Show how far the work is. Return the bytes of text that are done."""
        if (now := time.monotonic()) >= self._read_at + STATE_SECONDS:
            self._amount, self._read_at = self._read(), now
        amount = self._amount
        new_bytes = amount.text_bytes - self._before.text_bytes
        speed = new_bytes / max(1e-3, self._read_at - self._start)
        done_bytes = min(amount.text_bytes, self._total)
        show(progress_text(BuildProgress(self._name, done_bytes, self._total, speed), amount.tokens))
        return float(amount.text_bytes)

    def _read(self) -> BuiltAmount:
        return sum((state.read() for state in self._states), BuiltAmount())


def write_task(file: Path, configs: Sequence[Config], task: TokenizeTask) -> Path:
    """Write the file of a task, and the configs beside it. Return the file."""
    names = [f"config-{number}.yaml" for number in range(len(configs))]
    for name, config in zip(names, configs, strict=True):
        write_config(file.parent / name, config)
    atomic_files.write_json(file, {"configs": names, **dataclasses.asdict(task)})
    return file


def main(file: str) -> int:
    """Tokenise as the file of a task says. Return the exit status."""
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, _leave)
    try:
        content = atomic_files.read_json(Path(file))
        if not isinstance(content, dict):
            raise UserError(f"{file} is not there or damaged. Give the command again.")
        task = TokenizeTask(content["processes"], content["memory"], joins=True)
        configs = [read_config(Path(file).parent / name) for name in content["configs"]]
        print(*open_sources(find_sources(configs), task, log_lines(_print)), sep="\n", flush=True)
    except KeyboardInterrupt:
        return LEFT_EARLY
    except (UserError, OSError) as error:
        sentence = disk_error(error, file) if isinstance(error, OSError) else error
        if sentence is None:
            raise
        print(sentence, file=sys.stderr, flush=True)
        return USERS_MISTAKE
    return 0


def _print(text: str) -> None:
    print(text, flush=True)


def _leave(*_: object) -> None:
    raise KeyboardInterrupt


def log_lines(write: Show) -> Show:
    """Return a function that writes the texts of its calls, one every LINE_SECONDS."""
    next_time = 0.0

    def show(text: str) -> None:
        nonlocal next_time
        if (now := time.monotonic()) >= next_time:
            next_time = now + LINE_SECONDS
            write(text)

    return show


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
