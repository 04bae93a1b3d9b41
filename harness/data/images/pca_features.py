"""Features of real images, for the distance of samples to them: principal components.

A network's features would need training or a download. Components follow from the run's training images,
whatever these are, and do not depend on the variant. They capture layout, not meaning.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, UInt8

NUM_COMPONENTS, MAX_FIT_IMAGES = 32, 1_000
"""Number of principal components, and of the training images to compute them from."""


@dataclass(frozen=True)
class PCAFeatures:
    """Principal components of the training images, and features of all images in them."""

    mean_P: Float64[np.ndarray, " P"]
    components_PK: Float64[np.ndarray, "P K"]
    train_NK: Float64[np.ndarray, "N K"]
    """Features of all training images."""
    heldout_MK: Float64[np.ndarray, "M K"]
    labels_M: Int64[np.ndarray, " M"]
    """Labels of the held-out images."""

    @classmethod
    def fit(
        cls,
        train_NHWC: UInt8[np.ndarray, "N H W C"],
        heldout_MHWC: UInt8[np.ndarray, "M H W C"],
        labels_M: Int64[np.ndarray, " M"],
    ) -> PCAFeatures:
        """Compute the components from the training images, and the features of both sets."""
        train_NP = _flatten(train_NHWC)
        mean_P, components_PK = _principal_components(train_NP)
        train_NK, heldout_MK = ((x - mean_P) @ components_PK for x in (train_NP, _flatten(heldout_MHWC)))
        return cls(mean_P, components_PK, train_NK, heldout_MK, labels_M)

    @property
    def name(self) -> str:
        """Name of the features, for the record of a run."""
        return f"{self.components_PK.shape[1]} principal components of the training images"

    def project(self, images_NHWC: UInt8[np.ndarray, "N H W C"]) -> Float64[np.ndarray, "N K"]:
        """Return the features of images."""
        return (_flatten(images_NHWC) - self.mean_P) @ self.components_PK


def _flatten(images_NHWC: np.ndarray) -> np.ndarray:
    """Return images as [N, P], scaled to -1..1."""
    return images_NHWC.reshape(len(images_NHWC), -1).astype(np.float64) / 127.5 - 1


def _principal_components(train_NP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the top components of evenly spaced images, from their Gram matrix."""
    mean_P = train_NP.mean(axis=0)
    subset_NP = train_NP[:: -(-len(train_NP) // MAX_FIT_IMAGES)] - mean_P
    variance_N, vectors_NN = np.linalg.eigh(subset_NP @ subset_NP.T)
    rank = min(NUM_COMPONENTS, int((variance_N > 1e-9 * variance_N[-1]).sum()))
    components_PK = subset_NP.T @ vectors_NN[:, ::-1][:, :rank]
    return mean_P, components_PK / np.linalg.norm(components_PK, axis=0)
