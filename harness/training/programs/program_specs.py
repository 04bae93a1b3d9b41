"""What the programs of a run are called with: shapes, types and shardings over a mesh of devices that are
here (`Mesh`) or are not (`AbstractMesh`)."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from jax import P
from jax.sharding import AbstractMesh, Mesh, NamedSharding

from harness.config.schema.run import Config
from harness.models import Model
from harness.parallel.sharding.axis_rules import batch_sharding, param_shardings
from harness.training.step import Step, TrainState, make_step
from harness.training.trainable.trainable_model import Learner, Params, learner_of, split


@dataclass(frozen=True)
class Specs:
    """Of one run. Raises UserError where something does not divide over the mesh."""

    config: Config
    model: Model
    mesh: Mesh | AbstractMesh

    def entered(self) -> AbstractContextManager[Any]:
        """The mesh in context, which tracing wants."""
        if isinstance(self.mesh, Mesh):
            return jax.set_mesh(self.mesh)
        return jax.sharding.use_abstract_mesh(self.mesh)

    @functools.cached_property
    def learner(self) -> Learner:
        return learner_of(self.config, self.model)

    @functools.cached_property
    def optimizer(self) -> optax.GradientTransformation:
        return self.learner.optimizer(self.config.optimizer)

    @functools.cached_property
    def step(self) -> Step:
        return make_step(self.learner, self.config.optimizer, self.optimizer, self.learner.learning)

    @property
    def step_arguments(self) -> tuple[TrainState, jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
        """Of `step`: the state, which it may overwrite, tokens, learning rate."""
        tokens = jax.ShapeDtypeStruct(self.batch_shape, jnp.int32, sharding=self.batch_sharding)
        return self.state, tokens, self.number

    @property
    def number(self) -> jax.ShapeDtypeStruct:
        """One float on every device."""
        return jax.ShapeDtypeStruct((), jnp.float32, sharding=NamedSharding(self.mesh, P()))

    @property
    def rows(self) -> jax.ShapeDtypeStruct:
        """A batch that is not cut into micro-batches, [sequences, T+1]."""
        shape = (self.config.scale.batch, self.model.row_length)
        return jax.ShapeDtypeStruct(shape, jnp.int32, sharding=self.row_sharding)

    @functools.cached_property
    def param_shardings(self) -> dict[str, NamedSharding]:
        return param_shardings(self.mesh, self.learner.stored)

    @functools.cached_property
    def params(self) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            path: jax.ShapeDtypeStruct(spec.shape, jnp.float32, sharding=self.param_shardings[path])
            for path, spec in self.learner.stored.items()
        }

    @property
    def learning(self) -> Params:
        """Of `params`, those that learn."""
        return split(cast(Params, self.params), self.learner.learning)[0]

    @functools.cached_property
    def state(self) -> TrainState:
        with self.entered():
            moments = jax.eval_shape(self.optimizer.init, self.learning)
        return TrainState(cast(Params, self.params), jax.tree.map(self._placed, moments))

    def _placed(self, leaf: Any) -> jax.ShapeDtypeStruct:
        spec = getattr(leaf.sharding, "spec", None) or P()
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(self.mesh, spec))

    @property
    def batch_shape(self) -> tuple[int, int, int]:
        """[micro-batches, sequences, T+1]"""
        count = self.config.compute.microbatches
        return (count, self.config.scale.batch // count, self.model.row_length)

    @functools.cached_property
    def row_sharding(self) -> NamedSharding:
        return batch_sharding(self.mesh, self.config.scale.batch)

    @functools.cached_property
    def batch_sharding(self) -> NamedSharding:
        rows = batch_sharding(self.mesh, self.batch_shape[1])
        return NamedSharding(self.mesh, P(None, *rows.spec))
