"""The training step of a config over any mesh, and what is known of it without a compiler."""

from __future__ import annotations

from dataclasses import dataclass

import jax
from jax.sharding import AbstractMesh, Mesh

from harness.config.schema.run import Config
from harness.data.open_data import data_of
from harness.models import Model, build
from harness.models.user_modules import import_modules
from harness.training.programs.program_specs import Specs
from harness.training.trainable.trainable_model import learner_of


@dataclass(frozen=True)
class Maker:
    """What a step is made of; called with a mesh, it says what the step is called with there."""

    config: Config
    model: Model

    def __call__(self, mesh: Mesh | AbstractMesh) -> Specs:
        """Raises UserError where something does not divide over the mesh."""
        return Specs(self.config, self.model, mesh)


def specs_of(config: Config) -> Maker:
    """Raises UserError for what cannot be built."""
    import_modules(config)
    data, _ = data_of(config)
    return Maker(config, build(config, data.vocabulary, data.end, data.image))


def traced(specs: Specs) -> jax.stages.Traced:
    """The step as a lane would trace it: it may overwrite the state."""
    with specs.entered():
        return jax.jit(specs.step, donate_argnums=0).trace(*specs.step_arguments)


def state_bytes(specs: Specs) -> int:
    """Of one device: parameters and what the optimizer keeps of them, by the shapes of their shards."""
    return sum(_shard_bytes(leaf) for leaf in jax.tree.leaves(specs.state))


def _shard_bytes(leaf: jax.ShapeDtypeStruct) -> int:
    shape = leaf.shape if leaf.sharding is None else leaf.sharding.shard_shape(leaf.shape)
    return jax.ShapeDtypeStruct(shape, leaf.dtype).size * leaf.dtype.itemsize


def executed_flops(make: Maker) -> float:
    """Of a whole step in closed form, as the code multiplies: padding and what is computed again too."""
    config = make.config
    sequences = config.scale.batch // config.compute.microbatches
    each = learner_of(config, make.model).executed_flops_per_token(sequences)
    return each * config.scale.batch * config.data.sequence_length
