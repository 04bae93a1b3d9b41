"""Optimizers of papers and speed-runs, one file each. Importing this package registers them."""

from harness.training.optimizers.published import (
    ademamix,
    averaged,
    cautious,
    hyperball,
    nadamw,
    normuon,
    schedule_free,
    scion,
    shampoo,
    soap,
)

__all__ = [
    "ademamix",
    "averaged",
    "cautious",
    "hyperball",
    "nadamw",
    "normuon",
    "schedule_free",
    "scion",
    "shampoo",
    "soap",
]
