"""Small sources whose documents can be told apart, and a cache of each test's own."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.config.schema.data import DataConfig, SourceConfig
from harness.data import TextCorpus, open_data

END = "<|endoftext|>"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("AB_HARNESS_CACHE", str(folder))
    return folder


@functools.cache
def documents(name: str, count: int = 120) -> list[str]:
    """Documents of 10 to 60 words, each with its own mark `[name-number]`, some letters not ASCII."""
    draw = random.Random(name)
    words = ["attention", "is", "naïve", "漢字", "to", "train", "\n", "a", "  model"]
    return [f"[{name}-{i}] " + " ".join(draw.choices(words, k=draw.randint(10, 60))) for i in range(count)]


def write(path: Path, texts: list[str]) -> Path:
    path.write_text(f"\n{END}\n".join(texts), encoding="utf-8")
    return path


def text_corpus(config: DataConfig) -> TextCorpus:
    corpus = open_data(config)
    assert isinstance(corpus, TextCorpus)
    return corpus


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., DataConfig]:
    """A data config with a source per weight, each of its own documents."""

    def make(weights: dict[str, float], **fields) -> DataConfig:
        sources = {
            name: SourceConfig(str(write(tmp_path / f"{name}.txt", documents(name))), weight)
            for name, weight in weights.items()
        }
        return DataConfig(
            "test", sources, **{"tokenizer": "byte", "sequence_length": 16, "holdout": 0.2} | fields
        )

    return make
