"""Arguments of a run's programs: shapes, types and shardings, over a mesh of real devices (`Mesh`) or of
devices that are not present (`AbstractMesh`)."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import P
from jax.sharding import AbstractMesh, Mesh, NamedSharding

from harness.config.schema.run import Config
from harness.models import Model
from harness.parallel.sharding.axis_rules import batch_sharding, param_shardings
from harness.training.metrics.metric_registry import MeasuredAt, configured_metrics
from harness.training.optimizers.run_optimizer import RunOptimizer
from harness.training.schedules.values import constant_values
from harness.training.step import Step, TrainState, make_step
from harness.training.step_inputs import StepInputs, resting_inputs
from harness.training.trainable.trainable_model import Params, TrainableModel, make_trainable, split_trainable


def batch_parts(config: Config) -> tuple[int, int]:
    """Return the number of parts of a batch that the model takes one after another, and the sequences of
    each: its micro-batches, or one part for the stages of a pipeline."""
    count = config.compute.microbatches if config.mesh.pipeline == 1 else 1
    return count, config.scale.batch // count


@dataclass(frozen=True)
class ProgramSpecs:
    """Argument specs of one run's programs. Raises UserError if a size does not divide over the mesh."""

    config: Config
    model: Model
    mesh: Mesh | AbstractMesh

    def mesh_context(self) -> AbstractContextManager[Any]:
        """Return the context that sets the mesh, which tracing needs."""
        if isinstance(self.mesh, Mesh):
            return jax.set_mesh(self.mesh)
        return jax.sharding.use_abstract_mesh(self.mesh)

    @functools.cached_property
    def trainable_model(self) -> TrainableModel:
        """Model with its trainable parameters. Raises UserError for a bad `config.finetune`."""
        return make_trainable(self.config, self.model)

    @functools.cached_property
    def optimizer(self) -> RunOptimizer:
        """Optimizer of the trainable parameters."""
        return self.trainable_model.build_optimizer(self.config.optimizer)

    def judged_params(self, state: TrainState) -> Params:
        """Return the parameters that are evaluated, sampled and exported, inside a trace: those that are
        trained, or what the optimizer makes of them."""
        trainable, frozen = split_trainable(state.params, self.trainable_model.trainable_paths)
        return self.optimizer.judged(trainable, state.optimizer) | frozen

    @functools.cached_property
    def step(self) -> Step:
        """Training step, not compiled."""
        model, config = self.trainable_model, self.config
        metrics = configured_metrics(config, MeasuredAt.step)
        return make_step(
            model, config.optimizer, self.optimizer, model.trainable_paths, config.loss.z_loss, metrics
        )

    @property
    def step_arguments(self) -> tuple[TrainState, jax.ShapeDtypeStruct, StepInputs]:
        """Arguments of `step`: state (which it may overwrite), tokens, and the step's scalars."""
        tokens = jax.ShapeDtypeStruct(self.batch_shape, self.model.row_dtype, sharding=self.batch_sharding)
        inputs = resting_inputs(self.config, clock=self.has_clock)
        inputs = inputs.with_values({key: np.float32(v) for key, v in constant_values(self.config).items()})
        return self.state, tokens, jax.tree.map(lambda scalar: self._scalar(np.asarray(scalar).dtype), inputs)

    @property
    def has_clock(self) -> bool:
        """True if anything in the run asks for the place of a step."""
        return self.model.asks_clock or self.optimizer.asks_clock

    @property
    def scalar(self) -> jax.ShapeDtypeStruct:
        """Float32 scalar, replicated on every device."""
        return self._scalar(jnp.float32)

    def _scalar(self, dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((), dtype, sharding=NamedSharding(self.mesh, P()))

    @property
    def microbatch(self) -> jax.ShapeDtypeStruct:
        """Micro-batch, or all of a pipeline: [sequences, T+1]. Evaluation takes one at a time, so it
        needs no more memory than the step."""
        return jax.ShapeDtypeStruct(self.batch_shape[1:], self.model.row_dtype, sharding=self.row_sharding)

    @functools.cached_property
    def param_shardings(self) -> dict[str, NamedSharding]:
        """Shardings of all parameters by stored path."""
        return param_shardings(self.mesh, self.trainable_model.stored_specs)

    @functools.cached_property
    def params(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Specs of all parameters by stored path, in the dtypes that they are kept in."""
        dtypes, shardings = self.trainable_model.dtypes, self.param_shardings
        return {
            path: jax.ShapeDtypeStruct(spec.shape, dtypes[path], sharding=shardings[path])
            for path, spec in self.trainable_model.stored_specs.items()
        }

    @property
    def trainable_params(self) -> Params:
        """Specs of the trainable parameters by stored path."""
        return split_trainable(cast(Params, self.params), self.trainable_model.trainable_paths)[0]

    @functools.cached_property
    def state(self) -> TrainState:
        """Specs of the training state: parameters and optimizer moments."""
        with self.mesh_context():
            moments = jax.eval_shape(self.optimizer.init, self.trainable_params)
        return TrainState(cast(Params, self.params), jax.tree.map(self._with_sharding, moments))

    def _with_sharding(self, leaf: Any) -> jax.ShapeDtypeStruct:
        spec = getattr(leaf.sharding, "spec", None) or P()
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(self.mesh, spec))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of a batch: [micro-batches, sequences, T+1]. A pipeline takes all micro-batches at once."""
        count, sequences = batch_parts(self.config)
        return (count, sequences, *self.model.row_shape)

    @functools.cached_property
    def row_sharding(self) -> NamedSharding:
        """Sharding of a micro-batch, by rows."""
        return batch_sharding(self.mesh, self.batch_shape[1])

    @functools.cached_property
    def batch_sharding(self) -> NamedSharding:
        """Sharding of a batch of micro-batches, by the rows of each."""
        return NamedSharding(self.mesh, P(None, *self.row_sharding.spec))
