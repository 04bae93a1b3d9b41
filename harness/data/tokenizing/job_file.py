"""File of a job: what a helper process has to know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.core.atomic_files import parse_json, write_json
from harness.data.codecs.tokenizer_file import load_tokenizer
from harness.data.shards.encoding import Encoding
from harness.data.text_sources.source import Source
from harness.data.text_sources.split import Split
from harness.data.tokenizing.claims import Job

PORTION, ERROR = "+", "!"
"""First characters of the lines that a helper prints: of a portion of text, and of an error."""


def write_job(path: Path, job: Job) -> None:
    """Write a job."""
    source, encoding = job.source, job.encoding
    content = {
        "name": source.name, "path": source.path, "column": source.column, "files": [*map(str, source.files)],
        "root": str(source.folder), "tokenizer": encoding.tokenizer, "holdout": encoding.holdout,
        "split": encoding.split.value, "folder": str(job.folder), "processes": job.processes,
    }  # fmt: skip
    write_json(path, content)


def read_job(path: Path) -> Job:
    """Return the job of a file. Raises UserError for a tokenizer that is gone."""
    content: Any = parse_json(path.read_text())
    files, root = tuple(map(Path, content["files"])), Path(content["root"])
    source = Source(content["name"], content["path"], content["column"], files, root)
    codec = load_tokenizer(content["tokenizer"])
    encoding = Encoding(content["tokenizer"], codec, content["holdout"], Split(content["split"]))
    return Job(source, encoding, Path(content["folder"]), content["processes"])
