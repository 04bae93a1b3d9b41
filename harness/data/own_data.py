"""Data of a user's own: a function from seed, step and batch size to rows.

@register_data("spirals", Options)
class Spirals:
    vocabulary = 2  # if rows hold tokens or labels

    def __init__(self, sequence_length: int, options: Options): ...
    def batch(self, seed: int, step: int, batch: int) -> np.ndarray: ...  # int32 or float32 [batch, ...]
    def heldout(self, count: int) -> np.ndarray | dict[str, np.ndarray]: ...  # [count, ...], by domain
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.config.schema.data import DataConfig
from harness.config.socket_registry import Configured
from harness.core.errors import UserError
from harness.core.hashing import hash_json, to_plain
from harness.data.order.example_order import check_plain_order
from harness.data.order.permutation import make_key
from harness.data.order.sampler import Batch
from harness.data.text.corpus import HeldOut
from harness.data.text.describe_text import DataFacts

DTYPES = ("int32", "float32")
"""Dtypes that rows may have."""
PROBE_BATCH = 4
"""Rows of the batches that are hashed to tell whether data have changed."""


@dataclass(frozen=True)
class OwnSampler:
    """Batches of one data seed of a user's data."""

    data: OwnData
    batch_size: int
    data_seed: int
    local_rows_B: np.ndarray | None = None
    """Mask of the rows that this process feeds to its devices; None: all rows."""

    def batch(self, t: int) -> Batch:
        """Return the batch of step t, counted from 0: zeros in other processes' rows, but all ids."""
        rows = np.array(self.data.rows(self.data_seed, t, self.batch_size))
        if self.local_rows_B is not None:
            rows[~self.local_rows_B] = 0
        first = make_key("own", self.data.name, self.data_seed, self.batch_size, t)
        return Batch(rows, np.uint64(first) + np.arange(self.batch_size, dtype=np.uint64))


@dataclass(frozen=True)
class OwnData:
    """A user's data, checked wherever it gives rows."""

    name: str
    source: Any
    sequence_length: int

    def rows(self, seed: int, step: int, batch: int) -> np.ndarray:
        """Return the rows of a step. Raises UserError if they are none."""
        return self._checked("batch", self.source.batch(seed, step, batch), batch)

    def sampler(self, batch: int, data_seed: int, local_rows_B: np.ndarray | None = None) -> OwnSampler:
        """Return the sampler of `batch` rows per step."""
        return OwnSampler(self, batch, data_seed, local_rows_B)

    def heldout(self, tokens: int) -> dict[str, HeldOut]:
        """Return the same rows for every run. Raises UserError for less than one."""
        count = tokens // self.sequence_length
        if not count:
            raise UserError(
                f"evaluation.tokens={tokens} is less than one example: give at least"
                f" data.sequence_length={self.sequence_length}"
            )
        rows = self.source.heldout(count)
        domains = rows if isinstance(rows, dict) else {self.name: rows}
        return {name: HeldOut(self._checked("heldout", rows, count), 0) for name, rows in domains.items()}

    def pca_features(self, tokens: int) -> None:
        """Return None: samples are compared with images alone."""

    def _checked(self, method: str, rows: Any, count: int) -> np.ndarray:
        is_array = isinstance(rows, np.ndarray) and rows.ndim > 1 and str(rows.dtype) in DTYPES
        if not is_array or len(rows) != count:
            shape_text = (
                f"{rows.dtype} {[*rows.shape]}" if isinstance(rows, np.ndarray) else type(rows).__name__
            )
            raise UserError(
                f"data.kind={self.name}: {method} gives {shape_text}, not {count} rows: give a numpy array"
                f" [{count}, ...] of {' or '.join(DTYPES)}."
            )
        return rows


def open_own(config: DataConfig, data_format: Configured[Any]) -> OwnData:
    """Open a user's data."""
    source = data_format.entry.implementation(config.sequence_length, data_format.options)
    return OwnData(data_format.name, source, config.sequence_length)


def describe_own(config: DataConfig, eval_tokens: int, data_format: Configured[Any]) -> DataFacts:
    """Check a user's data and return its facts. Raises UserError for rows that depend on more than seed, step
    and batch size."""
    data = open_own(config, data_format)
    if config.sources or config.mask_documents or config.stages:
        key = "sources" if config.sources else "mask_documents" if config.mask_documents else "stages"
        raise UserError(f"data.{key} is for text and images; data.kind={data.name} makes rows. Leave it out.")
    check_plain_order(config, f"rows of data.kind={data.name}")
    probes, second_probes = ([data.rows(0, step, PROBE_BATCH) for step in (0, 1)] for _ in range(2))
    if any(not np.array_equal(a, b, equal_nan=True) for a, b in zip(probes, second_probes, strict=True)):
        raise UserError(
            f"data.kind={data.name}: two calls of batch(0, 0, {PROBE_BATCH}) differ. Draw from"
            " np.random.default_rng([seed, step]), so that a step can be read second_probes."
        )
    heldout = data.heldout(eval_tokens)
    for name, rows in ((name, domain.tokens_NT) for name, domain in heldout.items()):
        if (rows.shape[1:], rows.dtype) != (probes[0].shape[1:], probes[0].dtype):
            raise UserError(
                f"data.kind={data.name}: held-out rows of {name} are {rows.dtype} {[*rows.shape[1:]]}, but a"
                f" batch has {probes[0].dtype} {[*probes[0].shape[1:]]}. Give both one shape."
            )
    base = {"own": data.name, "options": to_plain(config.options), "sequence_length": config.sequence_length}
    return DataFacts(
        vocabulary=int(getattr(data.source, "vocabulary", 1)),
        end_token=None,
        fingerprint=hash_json(base | {"rows": [*map(_digest, probes)]}),
        eval_fingerprint=hash_json(base | {n: _digest(domain.tokens_NT) for n, domain in heldout.items()}),
        domains=tuple(heldout),
        row=probes[0].shape[1:],
        dtype=str(probes[0].dtype),
    )


def _digest(rows: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest()
