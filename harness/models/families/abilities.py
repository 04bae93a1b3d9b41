"""Abilities of some families beyond a loss. Other rooms ask for an ability, never for a family."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jax import Array
from jaxtyping import Float, Int

from harness.models.diffusion.model_spec import ImageModelDims
from harness.models.model_api import Params


class PredictsTokens(ABC):
    """A model that predicts each next token: it writes text, and its predictions can be compared."""

    @abstractmethod
    def logits(self, params: Params, tokens_BT: Int[Array, "B T"]) -> Float[Array, "B T V"]:
        """Return the float32 logits of each next token."""


class DrawsImages(ABC):
    """A model that draws images of a label."""

    @property
    @abstractmethod
    def shape(self) -> ImageModelDims:
        """Sizes of the model and of its images."""

    @abstractmethod
    def sample(
        self, params: Params, rows_BR: Int[Array, "B R"], guidance: Float[Array, ""], steps: int
    ) -> Float[Array, "B H W C"]:
        """Return images of the rows' labels, made from the noise of their keys; values are about -1 to 1."""
