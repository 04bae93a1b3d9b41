"""What a run reads: sources, tokenizers, the token cache, the mixture, batch(t)."""

from harness.data.corpus import Batch, Corpus, HeldOut, Sampler, open_data, roll
from harness.data.facts import DataFacts, describe_data
from harness.data.prefetch import Reader

__all__ = [
    "Batch",
    "Corpus",
    "DataFacts",
    "HeldOut",
    "Reader",
    "Sampler",
    "describe_data",
    "open_data",
    "roll",
]
