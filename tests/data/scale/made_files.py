"""Large files of tokens and of text, and reading them from a cold page cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from harness.data.documents.read_documents import END_OF_TEXT
from harness.data.tokens.token_sequence import TokenFile, TokenSequence

ROOT = Path(__file__).parents[3]
ROWS, LENGTH = 512, 4097
"""Windows of a batch, and tokens of one: inputs and targets."""
_CHUNK = 2**26


def write_tokens(path: Path, num_tokens: int, vocabulary: int = 50_000) -> Path:
    """Write a headerless file of uint16 tokens, onto the disk."""
    draw = np.random.default_rng(0)
    with path.open("wb") as file:
        for start in range(0, num_tokens, _CHUNK):
            count = min(_CHUNK, num_tokens - start)
            file.write(draw.integers(0, vocabulary, count, np.uint16).tobytes())
        file.flush()
        os.fsync(file.fileno())
    return path


def write_llm_c(path: Path, num_tokens: int) -> Path:
    """Write a file of llm.c whose tokens are a hole: zeros that take no room."""
    header = np.zeros(256, "<i4")
    header[:3] = 20240520, 1, num_tokens
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.write(header.tobytes())
        file.truncate(1024 + 2 * num_tokens)
    return path


def write_text(path: Path, num_bytes: int) -> Path:
    """Write the shipped texts again and again, each document with a number, so that all of them differ."""
    documents, number, size = shipped_documents(), 0, 0
    with path.open("w", encoding="utf-8") as file:
        while size < num_bytes:
            for document in documents:
                text = f"{number} {document}\n{END_OF_TEXT}\n"
                size, number = size + len(text.encode()), number + 1
                file.write(text)
                if size >= num_bytes:
                    break
    return path


def shipped_documents() -> list[str]:
    """Return the documents of two shipped texts."""
    texts = []
    for name in ("code", "prose"):
        with pa.input_stream(ROOT / f"harness/data/pack/{name}.txt.zst", compression="zstd") as stream:
            texts += bytes(stream.read()).decode().split(f"\n{END_OF_TEXT}\n")
    return texts


def sequence_of(path: Path) -> TokenSequence:
    """Return the tokens of a headerless file of uint16."""
    return TokenSequence.of_parts([TokenFile(path, 0, np.dtype("<u2"), path.stat().st_size // 2)])


def forget(path: Path) -> None:
    """Drop a file, or all files of a folder, from the page cache."""
    for file in path.rglob("*") if path.is_dir() else (path,):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def starts(round_: int, num_tokens: int, count: int, length: int) -> Iterator[np.ndarray]:
    """Yield batches of random window starts, other ones in each round."""
    draw = np.random.default_rng([7, round_])
    while True:
        yield draw.integers(0, num_tokens - length, count)
