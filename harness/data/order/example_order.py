"""Order in which a run reads the examples of a source: pure functions of (place, number of examples, key,
epoch).

With order=blocks the examples lie in blocks of neighbours. The blocks come in keyed random order, and the
examples of GROUP_BLOCKS blocks are mixed, so that the steps of some time read from as many places of a file
only. Each epoch begins its blocks at another example, so no example has a place of its own. A curriculum
sorts the random order (`curriculum`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt64

from harness.config.schema.data import DataConfig, Order
from harness.core.errors import UserError
from harness.data.order.permutation import make_key, permute

GROUP_BLOCKS = 16
"""Number of blocks whose examples are mixed."""


@dataclass(frozen=True)
class OrderSpec:
    """Order of the examples of each source before any curriculum."""

    block: int | None = None
    """Number of examples of a block; None: all examples are mixed."""

    @classmethod
    def of(cls, config: DataConfig) -> OrderSpec:
        """Return the order of a data config; a curriculum sorts the random one."""
        return cls(config.order_block if config.order is Order.blocks else None)


def check_plain_order(config: DataConfig, content: str) -> None:
    """Raise UserError for a packing or an order that only text can have. `content`: what is read instead."""
    default = DataConfig()
    for key in ("packing", "order"):
        if (value := getattr(config, key)) != getattr(default, key):
            raise UserError(
                f"data.{key}={value.value} is for text; {content} have no documents. Leave it out."
            )


def examples_at(
    order: OrderSpec,
    index_B: Int[np.ndarray, " B"],
    n: int,
    key: int,
    epoch_B: Int[np.ndarray, " B"] | int = 0,
) -> UInt64[np.ndarray, " B"]:
    """Return the examples at places `index_B` of an epoch of `n`. Each epoch has its own order."""
    if order.block is None:
        return permute(np.asarray(index_B, np.uint64), n, key, epoch_B)
    index_B = np.asarray(index_B, np.int64)
    epoch_B = np.broadcast_to(np.asarray(epoch_B, np.int64), index_B.shape)
    return _Blocks(n, order.block, key).examples(index_B, epoch_B)


@dataclass(frozen=True)
class _Blocks:
    """Blocks of `size` of `n` examples, in a circle; the last one is shorter if `size` does not divide n."""

    n: int
    size: int
    key: int

    def examples(self, index_B: np.ndarray, epoch_B: np.ndarray) -> np.ndarray:
        """Return the examples at these places."""
        block_B, place_B = np.divmod(self._mixed(index_B, epoch_B), self.size)
        full = self.n // self.size
        if full:
            is_full_B = block_B < full
            key = make_key("blocks", self.key)
            block_B[is_full_B] = permute(block_B[is_full_B], full, key, epoch_B[is_full_B])
        start_B = permute(np.zeros_like(epoch_B), self.n, make_key("start", self.key), epoch_B)
        return (np.uint64(self.size) * block_B.astype(np.uint64) + place_B.astype(np.uint64) + start_B) % (
            np.uint64(self.n)
        )

    def _mixed(self, index_B: np.ndarray, epoch_B: np.ndarray) -> np.ndarray:
        """Return the places of the order of blocks, mixed within groups. The last group is smaller."""
        group_size, key = GROUP_BLOCKS * self.size, make_key("within", self.key)
        group_B, place_B = np.divmod(index_B, group_size)
        mixed_B = np.empty_like(index_B)
        last = self.n // group_size
        for is_part_B, count in ((group_B < last, group_size), (group_B == last, self.n % group_size)):
            if is_part_B.any():
                draw_B = (epoch_B[is_part_B] << 32) + group_B[is_part_B]
                mixed_B[is_part_B] = permute(place_B[is_part_B], count, key, draw_B)
        return group_B * group_size + mixed_B
