"""What a run of images leaves at its end: a grid of samples, and how far they are from real images."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from harness.core.atomic_files import write_bytes
from harness.core.png import grid, png
from harness.data import Gallery
from harness.data.images.image_corpus import rows
from harness.models import ImageModel
from harness.parallel.processes.agreement import leads
from harness.records.paths import RunDir
from harness.records.run.sample_quality import Samples, write_record
from harness.training.programs.run_programs import Lane
from harness.training.programs.sample import STEPS
from harness.training.step import TrainState

COUNT = 256
"""Samples that are measured, or as many as there are held-out images to measure beside them."""
GUIDANCE = 2.0
"""Of the pictures. What is measured is what the model learned: guidance 1."""
EACH, ZOOM = 4, 2
"""Samples of a label in the picture, and its pixels a value."""


def write_samples(run: RunDir, lane: Lane, gallery: Gallery, state: TrainState) -> None:
    """Samples with the labels of held-out images, from noise of their own that all runs share."""
    model = lane.model
    assert isinstance(model, ImageModel)
    labels_N = gallery.labels_M[:COUNT]
    real_NK = gallery.heldout_MK[: len(labels_N)]
    made_NHWC = lane.sample(state, asked(model, labels_N, 0), 1.0)
    distances = (frechet(each, gallery.train_NK) for each in (gallery.features(made_NHWC), real_NK))
    shown_N = np.tile(np.arange(model.shape.vocabulary - 1), EACH)
    shown_NHWC = lane.sample(state, asked(model, shown_N, 0), GUIDANCE)
    if leads():
        write_bytes(run.picture, png(grid(shown_NHWC, model.shape.vocabulary - 1, ZOOM)))
        write_record(run, Samples(gallery.name, len(labels_N), STEPS, *distances))


def asked(model: ImageModel, labels_N: np.ndarray, seed: int) -> np.ndarray:
    """Rows that ask for images of these labels, each from noise of its own."""
    keys_N = np.random.Philox(key=seed).random_raw(len(labels_N))
    shape = model.shape
    blank = np.zeros((len(labels_N), shape.height, shape.breadth, shape.channels), np.uint8)
    return rows(keys_N, np.ones(len(labels_N)), labels_N, blank)


def frechet(one_NK: Float[np.ndarray, "N K"], other_MK: Float[np.ndarray, "M K"]) -> float:
    """Squared distance of the normals with the two means and covariances (Dowson and Landau 1982):
    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2). Biased upwards where samples are few."""
    means, covariances = zip(*(_moments(each) for each in (one_NK, other_MK)), strict=True)
    values_K, vectors_KK = np.linalg.eigh(covariances[0])
    root_KK = (vectors_KK * np.sqrt(np.maximum(values_K, 0))) @ vectors_KK.T
    crossed_K = np.linalg.eigvalsh(root_KK @ covariances[1] @ root_KK)
    spread = np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * np.sqrt(np.maximum(crossed_K, 0)).sum()
    return float(np.square(means[0] - means[1]).sum() + spread)


def _moments(features_NK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return features_NK.mean(axis=0), np.cov(features_NK, rowvar=False)
