"""Real images as features, for the distance of samples to them: coordinates in principal components.

A network's features would have to be trained, or brought along; components follow from the images that a
run is trained on, whichever these are, and no variant has a say in them. They see layout, not meaning.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, UInt8

NUM_COMPONENTS, MAX_FIT_IMAGES = 32, 1_000
"""Principal components, and the training images that they are computed from."""


@dataclass(frozen=True)
class PCAFeatures:
    mean_P: Float64[np.ndarray, " P"]
    components_PK: Float64[np.ndarray, "P K"]
    train_NK: Float64[np.ndarray, "N K"]
    """Features of all training images."""
    heldout_MK: Float64[np.ndarray, "M K"]
    labels_M: Int64[np.ndarray, " M"]
    """Of the held-out images."""

    @classmethod
    def fit(
        cls,
        train_NHWC: UInt8[np.ndarray, "N H W C"],
        heldout_MHWC: UInt8[np.ndarray, "M H W C"],
        labels_M: Int64[np.ndarray, " M"],
    ) -> PCAFeatures:
        train_NP = _flatten(train_NHWC)
        mean_P, components_PK = _principal_components(train_NP)
        train_NK, heldout_MK = (
            (pixels_NP - mean_P) @ components_PK for pixels_NP in (train_NP, _flatten(heldout_MHWC))
        )
        return cls(mean_P, components_PK, train_NK, heldout_MK, labels_M)

    @property
    def name(self) -> str:
        return f"{self.components_PK.shape[1]} principal components of the training images"

    def project(self, images_NHWC: UInt8[np.ndarray, "N H W C"]) -> Float64[np.ndarray, "N K"]:
        return (_flatten(images_NHWC) - self.mean_P) @ self.components_PK


def _flatten(images_NHWC: np.ndarray) -> np.ndarray:
    """[N, P] between -1 and 1."""
    return images_NHWC.reshape(len(images_NHWC), -1).astype(np.float64) / 127.5 - 1


def _principal_components(train_NP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean, and the directions of largest variance among evenly spaced images, by their Gram matrix."""
    mean_P = train_NP.mean(axis=0)
    subset_NP = train_NP[:: -(-len(train_NP) // MAX_FIT_IMAGES)] - mean_P
    variance_N, vectors_NN = np.linalg.eigh(subset_NP @ subset_NP.T)
    rank = min(NUM_COMPONENTS, int((variance_N > 1e-9 * variance_N[-1]).sum()))
    components_PK = subset_NP.T @ vectors_NN[:, ::-1][:, :rank]
    return mean_P, components_PK / np.linalg.norm(components_PK, axis=0)
