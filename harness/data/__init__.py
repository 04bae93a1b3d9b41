"""What a run reads: sources, tokenizers, the token cache, the mixture, batch(t)."""

from harness.data.corpus import Corpus, HeldOut, roll
from harness.data.facts import DataFacts
from harness.data.gallery import Gallery
from harness.data.images import ImageCorpus
from harness.data.mixes import MixFacts, Shared, describe_mix, shared
from harness.data.opening import describe_data, open_data
from harness.data.prefetch import Reader
from harness.data.sampler import Batch, Sampler

__all__ = [
    "Batch",
    "Corpus",
    "DataFacts",
    "Gallery",
    "HeldOut",
    "ImageCorpus",
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
