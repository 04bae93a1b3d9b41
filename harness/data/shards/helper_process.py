"""Process that builds shards beside others: `python -m harness.data.shards.helper_process JOB.json`.

It prints a line for each portion of text (`+ CHARACTERS`) and one for an error (`! SENTENCE`). It ends with
the process that has started it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.core.errors import UserError
from harness.data.shards.claims import Job, build_pieces
from harness.data.shards.encode_piece import Encoding
from harness.data.text.sources import Source
from harness.data.text.split import Split
from harness.data.text.tokenizers import load_tokenizer

PORTION, ERROR = "+", "!"
"""First characters of the lines that a helper prints."""
ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
"""One thread for each process: they share the cores by pieces."""


def to_json(job: Job) -> dict[str, Any]:
    """Return a job as plain data for `main`."""
    source, encoding = job.source, job.encoding
    return {
        "name": source.name, "path": source.path, "column": source.column, "files": [*map(str, source.files)],
        "root": str(source.folder), "tokenizer": encoding.tokenizer, "holdout": encoding.holdout,
        "split": encoding.split.value, "folder": str(job.folder), "processes": job.processes,
    }  # fmt: skip


def from_json(content: dict[str, Any]) -> Job:
    """Return the job of plain data. Raises UserError for a tokenizer that is gone."""
    files, root = tuple(map(Path, content["files"])), Path(content["root"])
    source = Source(content["name"], content["path"], content["column"], files, root)
    codec = load_tokenizer(content["tokenizer"])
    encoding = Encoding(content["tokenizer"], codec, content["holdout"], Split(content["split"]))
    return Job(source, encoding, Path(content["folder"]), content["processes"])


def main(path: str) -> int:
    """Build pieces of the job until all are there. Return the exit status."""
    try:
        build_pieces(from_json(json.loads(Path(path).read_text())), _reporter(os.getppid()))
    except UserError as error:
        print(ERROR, json.dumps(str(error)), flush=True)
        return 1
    return 0


def _reporter(parent: int) -> Callable[[int], None]:
    """Return a function that prints progress, and ends this process once its parent has ended."""

    def alive(characters: int) -> None:
        if os.getppid() != parent:
            sys.exit(1)
        if characters:
            print(PORTION, characters, flush=True)

    return alive


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
