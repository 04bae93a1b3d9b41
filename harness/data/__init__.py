"""What a run reads: sources, tokenizers, the token cache, the mixture, batch(t)."""

from harness.data.images.image_corpus import ImageCorpus
from harness.data.images.pca_features import Gallery
from harness.data.open_data import describe_data, open_data
from harness.data.order.mixture_schedule import MixFacts, Shared, describe_mix, shared
from harness.data.order.sampler import Batch, Sampler
from harness.data.prefetch import Reader
from harness.data.text.corpus import Corpus, HeldOut, roll
from harness.data.text.describe_text import DataFacts

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
