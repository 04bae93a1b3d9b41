"""What the documents print for a reader to copy: commands, overrides, options, files and paths.

How a command is tried, by its first words:

| command | in the quick tests | in `make test-docs` |
|---|---|---|
| harness sweep, train | the first and last config are composed | `--dry-run` describes and places each run |
| harness plan | options parsed, then as above | run as printed |
| any other verb | options parsed | run as printed, on a small sweep |
| make | the targets exist | |
| python -m, pytest | the module or the file exists | |
| of NOT_HERE | named there, with the reason | |
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("experiments/*/README.md")),
]
FENCE = re.compile(r"```(\S*)[^\n]*\n(.*?)```", re.DOTALL)
"""Fenced block: its language, or the directive in braces, and its content."""
OVERRIDE = re.compile(r"[a-z_.]+=.+")
OTHER_VALUES = re.compile(r"`(?:[^`\n]* )?([a-z_.]+)=[^`\s]+`((?:, `\w+`)+)")
"""A key with a value, then further values: `schedule=queue`, `static`."""
ARGUMENTS = re.compile(r"(?:at|causal|gives|rate_rule|scans|stream)=.+|\w+=\(.*")
"""Arguments of a registration, which the pages of the sockets write as Python does."""
INLINE = re.compile(r"`([^`\n]+)`")
COMMANDS = ("harness", "make", "python", "pytest", "pip", "pre-commit", "ray", "aws", "gcloud")
"""First words of a command."""
TRAINED = "runs/mine"
"""Sweep that `make test-docs` trains: the README's variant against mha, one scale and seed."""
RUN = f"{TRAINED}/xs/mha/seed0"
EXAMPLES = {
    "OVERRIDES": "experiment=attention",
    "SWEEP": TRAINED,
    "RUNS": TRAINED,
    "RUN[@STEP]": RUN,
    "RUN": RUN,
    "DIR": "exported",
    "VERB": "sweep",
    "seed=K": "seed=1",
    "question=NAME": "question=fewer_layers",
}
"""Words that stand for something of the reader's, and what the tests put there."""
NOT_HERE = {
    "pip": "needs the network",
    "pre-commit": "writes a hook into the repository",
    "ray": "needs hosts of a cluster; make test-ray starts one",
    "aws": "needs a bucket",
    "gcloud": "needs a TPU pod",
}
"""Programs that no test can call as printed, with the reason."""


@dataclass(frozen=True)
class Command:
    """Words of a command, with the examples in place, and the document that prints it."""

    document: str
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        return shlex.join(self.words)


def fences(text: str) -> Iterator[tuple[str, str]]:
    """Yield the language and the content of each fenced block."""
    yield from (match.groups() for match in FENCE.finditer(text))  # pyright: ignore[reportReturnType]


def inline(text: str) -> Iterator[str]:
    """Yield each piece of code inside the prose."""
    yield from INLINE.findall(FENCE.sub("", text))


def commands() -> list[Command]:
    """Return each command of the documents once."""
    found: dict[tuple[str, ...], Command] = {}
    for document in DOCUMENTS:
        for line in _lines(document.read_text()):
            if words := _words(line):
                found.setdefault(words, Command(str(document.relative_to(ROOT)), words))
    return [*found.values()]


def _lines(text: str) -> Iterator[str]:
    for _, block in fences(text):
        yield from block.replace("\\\n", " ").splitlines()
    yield from inline(text)


def _words(line: str) -> tuple[str, ...]:
    """Return the words of a line that is a command; none for output, code and bare names."""
    try:
        words = shlex.split(line.removeprefix("$ "), comments=True) or [""]
    except ValueError:  # an apostrophe in a sentence
        return ()
    if len(words) == 1 or _is_name(words) or words[0] not in COMMANDS or words[-1].endswith(("=", ":")):
        return ()
    return tuple(EXAMPLES.get(word, word) for word in words if word != "...")


def _is_name(words: list[str]) -> bool:
    """Return whether the words name a verb, or an option of a verb that needs a sweep or run."""
    needs_argument = words[1] not in ("sweep", "train", "plan") and "--help" not in words
    return words[0] == "harness" and (
        len(words) == 2 or (needs_argument and all(word.startswith("--") for word in words[2:]))
    )


def overrides() -> list[tuple[str, ...]]:
    """Return once each piece of inline code that consists of overrides, and the other values after it."""
    texts = [FENCE.sub("", document.read_text()) for document in DOCUMENTS]
    pieces = [piece for text in texts for piece in INLINE.findall(text)]
    for text in texts:
        for match in OTHER_VALUES.finditer(text):
            pieces += [f"{match[1]}={value}" for value in INLINE.findall(match[2])]
    words = [tuple(shlex.split(piece)) for piece in pieces if piece.count("'") % 2 == 0]
    return [*dict.fromkeys(each for each in words if all(map(_is_override, each)))]


def _is_override(word: str) -> bool:
    return bool(OVERRIDE.fullmatch(word) and not ARGUMENTS.fullmatch(word))
