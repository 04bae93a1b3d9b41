"""Data of a run: sources, tokenizers, the token cache, the mixture, batch(t)."""

from harness.data.images.pca_features import PCAFeatures
from harness.data.open_data import describe_data, describe_evaluated, heldout_rows, open_data
from harness.data.order.mixture_schedule import count_shared_examples, describe_mix
from harness.data.order.sampler import Batch
from harness.data.readers import Reader
from harness.data.text.corpus import HeldOut, TextCorpus, update_example_hash
from harness.data.text.describe_text import DataFacts

__all__ = [
    "Batch",
    "DataFacts",
    "HeldOut",
    "PCAFeatures",
    "Reader",
    "TextCorpus",
    "count_shared_examples",
    "describe_data",
    "describe_evaluated",
    "describe_mix",
    "heldout_rows",
    "open_data",
    "update_example_hash",
]
