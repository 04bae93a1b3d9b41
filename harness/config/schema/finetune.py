"""Config node of a run that starts from another one's checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class FinetuneMethod(Enum):
    """Parameters that train from a parent's checkpoint: none (no parent), all, LoRA factors, last layers."""

    none = "none"
    full = "full"
    lora = "lora"
    last_layers = "last_layers"


@dataclass
class FinetuneConfig:
    """Parent checkpoint of a run, and the parameters that train."""

    method: FinetuneMethod = FinetuneMethod.none
    """Parameters that train: none (no parent), full, lora or last_layers."""
    parent: str | None = None
    """Run directory, RUN (its last checkpoint) or RUN@STEP, of the same architecture and tokenizer."""
    rank: int = 8
    """Rank of the LoRA factors."""
    alpha: float = 16.0
    """LoRA scale: the product of the factors is multiplied by alpha / rank."""
    trainable_layers: int | None = None
    """Number of last layers that train with last_layers, with all that follows them; the rest, embedding
    included, is frozen."""
