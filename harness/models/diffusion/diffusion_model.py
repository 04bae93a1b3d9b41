"""A diffusion transformer as plain functions over a flat dict of parameters."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from harness.config.schema.run import Config, Precision, Remat
from harness.core.errors import UserError
from harness.models.diffusion import flops, sizing
from harness.models.diffusion.diffusion_transformer import DiffusionTransformer
from harness.models.diffusion.flow import FlowExamples, draw_noise, integrate_euler, unpatchify
from harness.models.diffusion.model_spec import ImageModelDims, ImageModelSpec, check_image_config
from harness.models.model_api import Model, Params, split_module

HEADER_WORDS = 4
"""Words of a row before the pixels."""


class ImageModel(Model):
    """One diffusion transformer. A token is a patch; an example is a row as `data.images.image_corpus`
    writes it."""

    spec: ImageModelSpec

    @property
    def shape(self) -> ImageModelDims:
        return self.spec.shape

    @property
    def row_length(self) -> int:
        return HEADER_WORDS + self.shape.pixels

    @property
    def loss_unit(self) -> str:
        return "mean squared error a value"

    @property
    def non_embedding_parameters(self) -> int:
        return sizing.count_non_embedding(self.spec)

    @property
    def embedding_parameters(self) -> int:
        """Of patches, time and labels, and the head."""
        return sum(param.size for param in self.param_specs.values()) - self.non_embedding_parameters

    @property
    def flops_per_token(self) -> float:
        return flops.model_flops(self.spec)

    @property
    def executed_flops_per_token(self) -> float:
        return flops.executed_flops(self.spec, self.compute.remat)

    @property
    def cache_bytes(self) -> float:
        """Sampling keeps nothing from step to step but the image."""
        return 0.0

    def velocity(
        self,
        params: Params,
        x_BTI: Float[Array, "B T I"],
        time_B: Float[Array, " B"],
        label_B: Int[Array, " B"],
    ) -> Float[Array, "B T I"]:
        """Where noised patches would go, float32."""
        return self.module(params)(x_BTI, time_B, label_B)

    def token_losses(self, params: Params, rows_BR: Int[Array, "B R"]) -> Float[Array, "B T"]:
        """Mean squared error of each patch's velocity, a value."""
        examples = FlowExamples.from_rows(rows_BR, self.shape)
        made_BTI = self.velocity(params, examples.x_t_BTI, examples.time_B, examples.label_B)
        return jnp.mean(jnp.square(made_BTI - examples.velocity_BTI), axis=-1)

    def loss(
        self, params: Params, rows_BR: Int[Array, "B R"], z_loss: float
    ) -> tuple[Float[Array, ""], dict[str, Any]]:
        """The mean over patches, which have all one size. There are no logits that `z_loss` could hold."""
        loss = jnp.mean(self.token_losses(params, rows_BR))
        return loss, {"loss": loss, "signals": {}}

    def sample(
        self, params: Params, rows_BR: Int[Array, "B R"], guidance: Float[Array, ""], steps: int
    ) -> Float[Array, "B H W C"]:
        """Images of the rows' labels from the noise of their keys, values around -1 to 1.

        The velocity is that without label plus `guidance` times what the label makes of difference
        (classifier-free guidance, arXiv:2207.12598): 1 samples what the model learned.
        """
        label_B, unlabelled_B = rows_BR[:, 3], jnp.full_like(rows_BR[:, 3], self.shape.vocabulary - 1)

        def velocity(x_BTI: Array, at: Array) -> Array:
            time_B = at * jnp.ones_like(label_B, jnp.float32)
            told, untold = (self.velocity(params, x_BTI, time_B, each) for each in (label_B, unlabelled_B))
            return untold + guidance * (told - untold)

        return unpatchify(
            integrate_euler(velocity, draw_noise(rows_BR[:, :2], self.shape), steps), self.shape
        )

    def activation_bytes(self, tokens: int) -> int:
        """A guess of what the backward pass keeps for so many patches: products, norms, scores."""
        shape, width = self.shape, 2 if self.compute.dtype is Precision.bfloat16 else 4
        scores = shape.layers * shape.heads * self.spec.tokens
        products = shape.layers * (8 * shape.width + 4 * shape.heads * shape.head_width + 3 * shape.ffn)
        kept = {
            Remat.none: products * width + scores * 8,
            Remat.dots: products * width,
            Remat.full: 0.0,
        }
        inputs = shape.layers * shape.width * width
        return int(tokens * (kept[self.compute.remat] + inputs + 16 * shape.values))


def build(config: Config, labels: int, image: tuple[int, int, int] | None) -> ImageModel:
    """The model of a run: sized and declared. Raises UserError for a config that has no model."""
    image = check_image_config(config, image)
    if config.mesh.context > 1:
        raise UserError(
            f"mesh.context={config.mesh.context} splits sequences of tokens, and images are none: give 1, and"
            " more to mesh.data or mesh.fsdp."
        )
    shape = sizing.choose_image_dims(config.model, config.scale.parameters, labels, image)
    return assemble(ImageModelSpec(config.model, shape, shape.patches), config)


def assemble(spec: ImageModelSpec, config: Config) -> ImageModel:
    """The model of a spec: the module is built and split once, here."""
    transformer = DiffusionTransformer(spec, config.compute)
    stacking = transformer.stacking
    return ImageModel(spec, config.compute, stacking, *split_module(transformer, stacking))
