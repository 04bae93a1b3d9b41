"""The training step of a config over any mesh, and its size and FLOPs without a compiler."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
from jax.sharding import AbstractMesh, Mesh

from harness.config.schema.run import Config
from harness.data.open_data import describe_run_data
from harness.models import Model, build
from harness.models.registry import import_modules
from harness.training.programs.program_specs import ProgramSpecs
from harness.training.trainable.trainable_model import make_trainable


@dataclass(frozen=True)
class StepFactory:
    """Config and model of a step. Call it with a mesh to get the step's argument specs."""

    config: Config
    model: Model

    def __call__(self, mesh: Mesh | AbstractMesh) -> ProgramSpecs:
        """Return the argument specs. Raises UserError if a dimension does not divide over the mesh."""
        return ProgramSpecs(self.config, self.model, mesh)


def step_factory(config: Config) -> StepFactory:
    """Build the model of a config, without parameters. Raises UserError if it cannot be built."""
    import_modules(config)
    data, _ = describe_run_data(config)
    return StepFactory(config, build(config, data.vocabulary, data.end_token, data.image))


def trace_step(specs: ProgramSpecs) -> jax.stages.Traced:
    """Trace the step as a training run does, with the state donated."""
    with specs.mesh_context():
        return jax.jit(specs.step, donate_argnums=0).trace(*specs.step_arguments)


def state_bytes(specs: ProgramSpecs) -> int:
    """Return the bytes of parameters and optimizer state on one device, from the shapes of their shards."""
    total = 0
    for leaf in jax.tree.leaves(specs.state):
        shape = leaf.shape if leaf.sharding is None else leaf.sharding.shard_shape(leaf.shape)
        total += math.prod(shape) * leaf.dtype.itemsize
    return total


def executed_flops(factory: StepFactory) -> float:
    """Return the FLOPs of one step on all devices, in closed form, with padding and rematerialisation."""
    config = factory.config
    sequences = config.scale.batch // config.compute.microbatches
    flops_per_token = make_trainable(config, factory.model).executed_flops_per_token(sequences)
    return flops_per_token * config.scale.batch * config.data.sequence_length
