"""Final samples of an image run: a grid to look at, and their distance to real images."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from harness.core.atomic_files import write_bytes
from harness.core.png import encode_png, image_grid
from harness.data import PCAFeatures
from harness.data.images.image_corpus import pack_rows
from harness.models.families.abilities import DrawsImages
from harness.parallel.processes.agreement import is_primary
from harness.records.paths import RunDir
from harness.records.run.sample_quality import SampleQuality, write_sample_quality
from harness.training.programs.evaluate import EULER_STEPS
from harness.training.programs.run_programs import RunPrograms
from harness.training.step import TrainState

NUM_SAMPLES = 256
"""Number of samples to measure; fewer if there are fewer held-out images to compare with."""
GUIDANCE = 2.0
"""Guidance scale of the grid. The measured samples have guidance 1: what the model learned."""
PER_LABEL, ZOOM = 4, 2
"""Number of grid samples per label, and grid pixels per image pixel."""


def write_samples(run: RunDir, programs: RunPrograms, features: PCAFeatures, state: TrainState) -> None:
    """Draw samples with the labels of held-out images, from noise that all runs share, and write them."""
    model = programs.model
    assert isinstance(model, DrawsImages), "checked by the caller"
    labels_N = features.labels_M[:NUM_SAMPLES]
    real_NK = features.heldout_MK[: len(labels_N)]
    samples_NHWC = programs.sample(state, sample_requests(model, labels_N, 0), 1.0)
    feature_sets = features.project(samples_NHWC), real_NK
    distances = (frechet_distance(features_NK, features.train_NK) for features_NK in feature_sets)
    grid_labels_N = np.tile(np.arange(model.shape.vocabulary - 1), PER_LABEL)
    grid_NHWC = programs.sample(state, sample_requests(model, grid_labels_N, 0), GUIDANCE)
    if is_primary():
        write_bytes(run.sample_grid, encode_png(image_grid(grid_NHWC, model.shape.vocabulary - 1, ZOOM)))
        write_sample_quality(run, SampleQuality(features.name, len(labels_N), EULER_STEPS, *distances))


def sample_requests(model: DrawsImages, labels_N: np.ndarray, seed: int) -> np.ndarray:
    """Return rows that request images of these labels, each with its own noise key."""
    keys_N = np.random.Philox(key=seed).random_raw(len(labels_N))
    shape = model.shape
    blank = np.zeros((len(labels_N), shape.height, shape.breadth, shape.channels), np.uint8)
    return pack_rows(keys_N, np.ones(len(labels_N)), labels_N, blank)


def frechet_distance(a_NK: Float[np.ndarray, "N K"], b_MK: Float[np.ndarray, "M K"]) -> float:
    """Compute the squared Frechet distance of the normals fitted to two sets of features, biased upwards for
    few samples: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2) (Dowson and Landau 1982)."""
    means = [features_NK.mean(axis=0) for features_NK in (a_NK, b_MK)]
    covariances = [np.cov(features_NK, rowvar=False) for features_NK in (a_NK, b_MK)]
    values_K, vectors_KK = np.linalg.eigh(covariances[0])
    root_KK = (vectors_KK * np.sqrt(np.maximum(values_K, 0))) @ vectors_KK.T
    cross_K = np.linalg.eigvalsh(root_KK @ covariances[1] @ root_KK)
    spread = np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * np.sqrt(np.maximum(cross_K, 0)).sum()
    return float(np.square(means[0] - means[1]).sum() + spread)
