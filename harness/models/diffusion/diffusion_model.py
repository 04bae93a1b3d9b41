"""A diffusion transformer as pure functions over a flat dict of parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from harness.config.schema.run import Config
from harness.core.errors import UserError
from harness.models.diffusion import flops, sizing
from harness.models.diffusion.diffusion_transformer import DiffusionTransformer
from harness.models.diffusion.flow import FlowExamples, draw_noise, integrate_euler, unpatchify
from harness.models.diffusion.model_spec import ImageModelDims, ImageModelSpec, check_image_config
from harness.models.execution.layer_stack import decide_scan
from harness.models.execution.pipeline import pipeline_schedule
from harness.models.families.abilities import DrawsImages
from harness.models.model_api import Model, Params
from harness.models.step_clock import StepClock

HEADER_WORDS = 4
"""Words of a row before the pixels."""


class ImageModel(Model, DrawsImages):
    """A diffusion transformer. A token is a patch, an example a row written by `data.images.image_corpus`."""

    spec: ImageModelSpec
    _module, _flops, _sizing = DiffusionTransformer, flops, sizing

    @property
    def shape(self) -> ImageModelDims:
        """Sizes of the model and of its images."""
        return self.spec.shape

    @property
    def row_length(self) -> int:
        """Number of int32 values in one example: header and pixels."""
        return HEADER_WORDS + self.shape.pixels

    @property
    def cache_bytes(self) -> float:
        """Zero: sampling keeps only the image between steps."""
        return 0.0

    def velocity(
        self,
        params: Params,
        x_BTI: Float[Array, "B T I"],
        time_B: Float[Array, " B"],
        label_B: Int[Array, " B"],
    ) -> Float[Array, "B T I"]:
        """Return the float32 velocity of noised patches."""
        return self.module(params)(x_BTI, time_B, label_B)

    def token_losses(self, params: Params, rows_BR: Int[Array, "B R"]) -> Float[Array, "B T"]:
        """Return the mean squared error of each patch's velocity, per value."""
        examples = FlowExamples.from_rows(rows_BR, self.shape)
        predicted_BTI = self.velocity(params, examples.x_t_BTI, examples.time_B, examples.label_B)
        return jnp.mean(jnp.square(predicted_BTI - examples.velocity_BTI), axis=-1)

    def loss(
        self, params: Params, rows_BR: Int[Array, "B R"], z_loss: float, clock: StepClock | None = None
    ) -> tuple[Float[Array, ""], dict[str, Any]]:
        """Return the mean over patches, and a dict with it. `z_loss` has no effect: there are no logits."""
        loss = jnp.mean(self.token_losses(params, rows_BR))
        return loss, {"loss": loss, "signals": {}}

    def sample(
        self, params: Params, rows_BR: Int[Array, "B R"], guidance: Float[Array, ""], steps: int
    ) -> Float[Array, "B H W C"]:
        """Return images of the rows' labels, made from the noise of their keys; values are about -1 to 1.

        The velocity is the unlabelled one plus `guidance` times the difference that the label makes
        (classifier-free guidance, arXiv:2207.12598). `guidance` 1 samples the learned distribution.
        """
        label_B, unlabelled_B = rows_BR[:, 3], jnp.full_like(rows_BR[:, 3], self.shape.vocabulary - 1)

        def velocity(x_BTI: Array, time: Array) -> Array:
            time_B = time * jnp.ones_like(label_B, jnp.float32)
            conditional, unconditional = (
                self.velocity(params, x_BTI, time_B, labels) for labels in (label_B, unlabelled_B)
            )
            return unconditional + guidance * (conditional - unconditional)

        images_BTI = integrate_euler(velocity, draw_noise(rows_BR[:, :2], self.shape), steps)
        return unpatchify(images_BTI, self.shape)

    def _saved_values(self) -> tuple[float, float, int]:
        shape = self.shape
        products = shape.layers * (8 * shape.width + 4 * shape.heads * shape.head_width + 3 * shape.ffn)
        return products, shape.layers * shape.heads * self.spec.tokens, 16 * shape.values


def build_image_model(config: Config, labels: int, image: tuple[int, int, int] | None) -> ImageModel:
    """Build the model of a run. Raises UserError for a config that has no model."""
    image = check_image_config(config, image)
    if config.mesh.context > 1:
        raise UserError(
            f"mesh.context={config.mesh.context} splits sequences of tokens, but data are images. Set it to"
            " 1, and raise mesh.data or mesh.fsdp instead."
        )
    shape = sizing.choose_image_dims(config.model, config.scale.parameters, labels, image)
    spec = ImageModelSpec(config.model, shape, shape.patches)
    compute = decide_scan(config, spec)
    pipeline = pipeline_schedule(config, bool(compute.scan_layers), shape.layers, spec.period)
    return ImageModel.assemble(replace(spec, pipeline=pipeline), compute)
