"""What a run reads: sources, tokenizers, the token cache, the mixture, batch(t)."""

from harness.data.corpus import Batch, Corpus, HeldOut, Sampler, open_data, roll
from harness.data.facts import DataFacts, describe_data
from harness.data.mixes import MixFacts, Shared, describe_mix, shared
from harness.data.prefetch import Reader

__all__ = [
    "Batch",
    "Corpus",
    "DataFacts",
    "HeldOut",
    "MixFacts",
    "Reader",
    "Sampler",
    "Shared",
    "describe_data",
    "describe_mix",
    "open_data",
    "roll",
    "shared",
]
