"""Typed config nodes of the data: sources, mixes over the run, packing and order of examples."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING


@dataclass
class SourceConfig:
    """Source of examples."""

    path: str = MISSING
    """File, folder or URL: .txt (documents separated by a line <|endoftext|>), .jsonl or .json (a document a
    line), .gz, .zst and .bz2 of these, .parquet. In a folder, links are followed, and hidden files and copies
    are left out; for images .npz (`images` uint8 [N, H, W] or [N, H, W, C], and optionally `labels` [N]); or
    `pack:NAME` for a text or images that ship with the harness."""
    weight: float = 1.0
    """Relative weight among the sources. 0: evaluated, never trained on."""
    column: str = "text"
    """Column of texts in JSONL and Parquet files, or of tokens in tables; dots lead into nested columns."""
    format: str | None = None
    """Registered format of files that hold tokens, such as llm_c, nanogpt, megatron or npy; null: known by
    the files' names and first bytes, and text where they are text."""
    options: dict[str, Any] = field(default_factory=dict)
    """What the format does not say, such as the dtype of a file without a header."""
    validation: str | None = None
    """File or folder whose documents are held out instead of `data.holdout` of this source."""


class Packing(Enum):
    """Way in which documents fill the examples."""

    concatenate = "concatenate"
    """Documents follow one another, and are cut where an example ends."""
    best_fit = "best_fit"
    """Documents stay whole if an example can hold them; what stays empty is no target (arXiv:2404.10830)."""


class Order(Enum):
    """Order in which a run reads the examples of a source."""

    random = "random"
    blocks = "blocks"
    """Blocks of neighbouring examples in random order, and the examples of some blocks mixed."""
    length = "length"
    """Those with short documents first; data.horizon says among how many."""


@dataclass
class StageConfig:
    """Change of the data mix during a run."""

    start: float = MISSING
    """Share of the run's steps at which the stage begins."""
    weights: dict[str, float] = field(default_factory=dict)
    """Weight by source from then on; a source that is not named keeps its weight."""


@dataclass
class DataConfig:
    """Training data, tokenizer and held-out share."""

    name: str = MISSING
    """Name of the data in records and reports."""
    sources: dict[str, SourceConfig] = field(default_factory=dict)
    tokenizer: str = "bpe512"
    """`byte`, `bpe512`, or the path of a `tokenizers` JSON file; `none` for files of tokens whose tokenizer
    is not here, with `vocabulary` and `end_token`."""
    sequence_length: int = 128
    """Number of tokens per sequence; for images, patches per image."""
    holdout: float = 0.05
    """Share of documents or images that is held out, by a hash of the text or the pixels. If that leaves no
    document on one side, the end of each document is held out instead."""
    mask_documents: bool = False
    """Attend only within a document; the examples and their order stay the same."""
    stages: list[StageConfig] = field(default_factory=list)
    """Later mixes of the run, in order. A cooldown branch reads what its parent would have read, so it omits
    a stage that begins after its end."""
    horizon: int | None = None
    """Token budget to which `stages` and order=length refer: ${scale.tokens}, since a batch depends only on
    the data config, the data seed and the step. Otherwise null."""
    packing: Packing = Packing.concatenate
    """Way in which documents fill the examples of training; held-out text is concatenated."""
    order: Order = Order.random
    """Order of the examples of each source, another one for each data seed."""
    order_block: int = 1024
    """Number of examples of a block, with order=blocks."""
    vocabulary: int | None = None
    """Number of tokens, with tokenizer=none."""
    end_token: int | None = None
    """Token that ends a document, with tokenizer=none; null: there is none."""
    kind: str = "text"
    """Registered kind of data: text, images, or one of your own."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of data of your own."""
    label_dropout: float = 0.1
    """Share of image examples that train without their label, for classifier-free guidance."""
