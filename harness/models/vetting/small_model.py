"""The model at a size that is executed in seconds, with the same mechanisms, and what it computes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from harness.config.schema.run import ComputeConfig
from harness.core.jax_setup.cpu_flags import unknown_flags
from harness.models.execution.pipeline import PipelineSchedule
from harness.models.initialisation.draw import Draw
from harness.models.kernels import CPU
from harness.models.model_api import Model, Params
from harness.models.model_spec import ModelSpec
from harness.models.parameters import init_param
from harness.models.step_clock import StepClock
from harness.models.text.text_model import TextModel

WIDTH, FFN, HEAD_WIDTH, VOCABULARY, TOKENS = 32, 64, 8, 1024, 256
"""Sizes of the small model; vocabulary and tokens are at most these."""
MAX_PARAMETERS = 10_000_000
"""Largest number of parameters of a model that is executed at its own size, where its options forbid the
small one."""
SEQUENCES = 2
"""Examples of a batch."""
NOISE = 0.05
"""Standard deviation of what is added to every parameter: none rests at a zero that hides what it does."""
CLOCK = StepClock(np.int32(3), np.float32(0.25), np.uint32(7), np.int32(0))
"""Place of the step at which a model that asks for it is executed."""
UNROLLED = ComputeConfig(scan_layers=False)
"""Plain execution in float32, which other ways must equal."""
QUICK_OPTIONS: dict[str, str | bool] = {
    "xla_backend_optimization_level": "0",
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": "1",
}
"""Options of XLA with which a small program compiles in a third of the time. It is executed a few times."""


def small_model(model: Model) -> Model | None:
    """Return the model that stands for this one in checks: float32, layer by layer, of two periods of layers
    and small widths, or of its own sizes where its options forbid those. None if that is too large. Raises
    whatever a trace at its own sizes raises."""
    for spec in _small_specs(model.spec):
        try:
            return _assemble(type(model), spec)
        except Exception:  # whatever the options of others raise: the next one is larger
            continue
    if model.parameters > MAX_PARAMETERS:
        return None
    return _assemble(type(model), _on_one_cpu(model.spec))


def _assemble(kind: type[Model], spec: ModelSpec) -> Model:
    """Return a model that can be traced."""
    model = kind.assemble(spec, UNROLLED)
    jax.eval_shape(functools.partial(losses, model), abstract_params(model), abstract_rows(model))
    return model


def _small_specs(spec: ModelSpec) -> Iterator[ModelSpec]:
    """Yield specs of the same mechanisms, the smallest first."""
    for head_width in (HEAD_WIDTH, spec.shape.head_width):
        for layers in (min(2 * spec.period, max(2, spec.shape.layers)), spec.shape.layers):
            sizes = {"width": WIDTH, "layers": layers, "head_width": head_width, "ffn": FFN}
            vocabulary = min(VOCABULARY, spec.shape.vocabulary)
            shape = replace(spec.shape, **sizes, vocabulary=vocabulary)
            end_token = spec.end_token if spec.end_token is None else min(spec.end_token, vocabulary - 1)
            yield replace(_on_one_cpu(spec), shape=shape, end_token=end_token)


def _on_one_cpu(spec: ModelSpec) -> ModelSpec:
    return replace(
        spec,
        config=replace(spec.config, base_width=None),
        sequence_length=min(TOKENS, spec.sequence_length),
        per_device_batch=SEQUENCES,
        sequence_shards=1,
        target=CPU,
        pipeline=PipelineSchedule(),
    )


def abstract_params(model: Model) -> Params:
    """Return the shapes of the parameters by stored path."""
    specs = model.stored_specs.items()
    return {path: jax.ShapeDtypeStruct(spec.shape, jnp.float32) for path, spec in specs}  # pyright: ignore[reportReturnType]


def abstract_rows(model: Model) -> jax.ShapeDtypeStruct:
    """Return the shape of a batch."""
    return jax.ShapeDtypeStruct((SEQUENCES, model.row_length), jnp.int32)


def example_rows(model: Model, seed: int = 0) -> np.ndarray:
    """Return a batch of random examples, each in one document."""
    vocabulary, end, shape = model.shape.vocabulary, model.spec.end_token, (SEQUENCES, model.row_length)
    rows_BR = np.random.default_rng(seed).integers(0, vocabulary, shape, np.int32)
    return rows_BR if end is None else np.where(rows_BR == end, (end + 1) % vocabulary, rows_BR)


def perturbed_params(model: Model) -> dict[str, np.ndarray]:
    """Return initial parameters by canonical path, with noise; each depends on its path alone."""
    noise = Draw("normal", NOISE)
    return {
        path: init_param(0, path, spec) + init_param(1, path, replace(spec, draw=noise))
        for path, spec in model.param_specs.items()
    }


class Losses(NamedTuple):
    """Results beside the loss that is minimised."""

    token_loss_BT: Array
    signals: dict[str, Any]
    logits_BTV: Array
    """Logits of a text model, by which it writes; empty for other models."""


def losses(model: Model, params: Params, rows_BR: Array) -> tuple[Array, Losses]:
    """Return the loss that is minimised, and what is computed beside it."""
    loss, parts = model.loss(params, rows_BR, 0.0, CLOCK if model.asks_clock else None)
    logits_BTV = model.logits(params, rows_BR[:, :-1]) if isinstance(model, TextModel) else jnp.zeros(0)
    return loss, Losses(model.token_losses(params, rows_BR), parts["signals"], logits_BTV)


class Outputs(NamedTuple):
    """Results of a model for a batch."""

    token_loss_BT: np.ndarray
    loss: float
    gradients: dict[str, np.ndarray]
    """Gradient of the loss by canonical path."""
    logits_BTV: np.ndarray
    """Logits; empty for a model that has none."""


@dataclass(frozen=True)
class Executable:
    """A model with parameters, compiled when it is first executed."""

    model: Model
    params: dict[str, np.ndarray]
    """Parameters by canonical path."""

    def __call__(self, rows_BR: np.ndarray) -> Outputs:
        """Compute the losses of a batch, and the gradient."""
        results = self._compiled(self.model.stack(self.params), rows_BR)
        (loss, beside), stored = jax.tree.map(np.asarray, results)
        gradients = self.model.unstack(stored)
        return Outputs(beside.token_loss_BT, float(loss), gradients, beside.logits_BTV)

    @functools.cached_property
    def _compiled(self) -> Callable[..., Any]:
        gradient = jax.value_and_grad(functools.partial(losses, self.model), has_aux=True)
        lowered = jax.jit(gradient).lower(abstract_params(self.model), abstract_rows(self.model))
        return compile_quickly(lowered)


def compile_quickly(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Compile a program that is executed a few times, with the options that the installed XLA knows."""
    flags = {name: f"--{name}=0" for name in QUICK_OPTIONS}
    unknown_options = unknown_flags(tuple(flags.values()))
    options = {name: value for name, value in QUICK_OPTIONS.items() if flags[name] not in unknown_options}
    return lowered.compile(options)
