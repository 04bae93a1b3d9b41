"""A pipeline over stacked layers: each part of the mesh axis `pipeline` holds one stage of them.

Micro-batches go from stage to stage in turns (GPipe, arXiv:1811.06965). All stages of a turn compute at once:
they are one function mapped over an axis that the mesh splits, so gradients, remat and the other axes work as
in a scan. A queue holds the micro-batches, each stage an equal part (the circular buffer of MaxText). In each
turn the first stage takes one from its part of the queue, the last stage puts one back, and what the others
hold of it moves on, so no device ever holds the whole batch. In the first and last turns some stages have no
micro-batch, and compute what nobody reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, P

from harness.config.schema.run import Config
from harness.core.errors import UserError
from harness.parallel.sharding.axis_rules import check_divides, partition_spec
from harness.parallel.sharding.sequence_parallel import per_device
from harness.parallel.sharding.stages import STAGE_AXIS

StageFunction = Callable[[Any, Any, Any], tuple[Any, Any]]
"""A stage: maps parameters [repeats, ...], what layers carry on, such as the residual stream [B, T, D], and
what goes with its sequences to what is carried on and statistics [repeats, ...]."""


@dataclass(frozen=True)
class PipelineSchedule:
    """Stages of a pipeline and the micro-batches of a step that pass them."""

    stages: int = 1
    microbatches: int = 1

    @property
    def turns(self) -> int:
        """Number of turns of a step: each stage computes in all of them."""
        return self.microbatches + self.stages - 1

    @property
    def executed_share(self) -> float:
        """FLOPs that the layers execute, over those of their micro-batches."""
        return self.turns / self.microbatches if self.stages > 1 else 1.0


def pipeline_schedule(config: Config, is_scanned: bool, layers: int, period: int) -> PipelineSchedule:
    """Return the schedule of a config whose mechanisms repeat every `period` layers. Raises UserError if the
    layers or the micro-batches do not fit its stages."""
    stages, microbatches = config.mesh.pipeline, config.compute.microbatches
    if stages == 1:
        return PipelineSchedule()
    key = f"mesh.pipeline={stages}"
    if config.mesh.context > 1:
        raise UserError(
            f"{key} and mesh.context={config.mesh.context} cannot split one model: a stage takes whole"
            " sequences. Set one of them to 1, and raise mesh.tensor or mesh.fsdp instead."
        )
    if not is_scanned:
        raise UserError(
            f"{key} splits the stacked layers of a scan, but these are not stacked. Set"
            " compute.scan_layers=true (not with finetune.method=last_layers), or mesh.pipeline=1."
        )
    if layers % (stages * period):
        unit = f"{period} layers that repeat" if period > 1 else "layers"
        raise UserError(
            f"{key} does not divide model.layers={layers} into equal stages of whole {unit}. Set"
            f" model.layers to a multiple of {stages * period}, or lower mesh.pipeline."
        )
    if microbatches % stages:
        raise UserError(
            f"{key} does not divide compute.microbatches={microbatches}, of which every stage starts with as"
            f" many. Set compute.microbatches to a multiple of {stages}, or lower mesh.pipeline."
        )
    check_divides(asdict(config.mesh), "batch", config.scale.batch // microbatches)
    return PipelineSchedule(stages, microbatches)


def apply_stages(
    stage: StageFunction, stacked: Any, inputs: Any, rows: Any, microbatches: int
) -> tuple[Any, Any]:
    """Apply the stages to `inputs`, what layers carry on, arrays [B, T, ...], in micro-batches. `rows` are
    arrays [B, ...] that go with the sequences. Return the output, and the statistics of all repeats as means
    over the micro-batches."""
    stages = jax.sharding.get_abstract_mesh().shape[STAGE_AXIS]
    params = jax.tree.map(partial(_split_stages, stages), stacked)
    queue = jax.tree.map(partial(_to_queue, stages, microbatches), (inputs, rows))
    stage_S = jax.reshard(jnp.arange(stages), P(STAGE_AXIS))
    columns = microbatches // stages

    def turn(carry: tuple[Any, Any], index: Array) -> tuple[tuple[Any, Any], Any]:
        state, queue = carry
        column = jax.tree.map(lambda q: jax.lax.dynamic_index_in_dim(q, index % columns, 1, False), queue)
        x_SBTD, rows_S = _select(stage_S == 0, column, state)
        y_SBTD, statistics = jax.vmap(stage)(params, x_SBTD, rows_S)
        after = (y_SBTD, rows_S)
        column = _select(stage_S == stages - 1, after, _rotate(column, -1))
        queue = jax.tree.map(
            lambda q, new: jax.lax.dynamic_update_index_in_dim(q, new, index % columns, 1), queue, column
        )
        is_busy_S = (index >= stage_S) & (index - stage_S < microbatches)
        statistics = _select(is_busy_S, statistics, jax.tree.map(jnp.zeros_like, statistics))
        return (_rotate(after, 1), queue), statistics

    start = jax.tree.map(lambda q: q[:, 0], queue)  # real sequences, so that idle stages compute no NaN
    turns = jnp.arange(PipelineSchedule(stages, microbatches).turns)
    (_, (queue_SMBTD, _)), statistics = jax.lax.scan(turn, (start, queue), turns)
    output = jax.tree.map(
        lambda queue, x: _from_queue(jnp.roll(queue, 1 - stages, axis=1), x), queue_SMBTD, inputs
    )
    return output, jax.tree.map(lambda s: _merge_stages(jnp.sum(s, axis=0) / microbatches), statistics)


def _split_stages(stages: int, stacked: Array) -> Array:
    """Split parameters [repeats, ...] by stage: [stages, repeats of one, ...]."""
    spec = jax.typeof(stacked).sharding.spec
    shape = (stages, len(stacked) // stages, *stacked.shape[1:])
    return jnp.reshape(stacked, shape, out_sharding=P(STAGE_AXIS, None, *spec[1:]))


def _merge_stages(statistics: Array) -> Array:
    """Merge statistics [stages, repeats of one, ...] to [repeats, ...], whole on every device."""
    replicated_statistics = jax.reshard(statistics, P(*[None] * statistics.ndim))
    return replicated_statistics.reshape(-1, *statistics.shape[2:])


def _to_queue(stages: int, microbatches: int, rows: Array) -> Array:
    """Deal rows [B, ...] out to the queue, [stages, micro-batches of one, B, ...]. A micro-batch takes every
    n-th row, so that each row stays on the devices where it is."""
    B, *inner = rows.shape
    sequences = partition_spec("batch")[0]
    unsplit = [None] * len(inner)
    shape = (B // microbatches, stages, microbatches // stages, *inner)
    split = jnp.reshape(rows, shape, out_sharding=P(sequences, STAGE_AXIS, None, *unsplit))
    return jnp.moveaxis(split, 0, 2)


def _from_queue(queue: Array, rows: Array) -> Array:
    """Undo `_to_queue`: return the queue in the order and sharding of `rows`."""
    return jnp.reshape(jnp.moveaxis(queue, 2, 0), rows.shape, out_sharding=jax.typeof(rows).sharding.spec)


def _select(mask_S: Array, if_true: Any, if_false: Any) -> Any:
    def select(x: Array, y: Array) -> Array:
        return jnp.where(mask_S.reshape(-1, *[1] * (x.ndim - 1)), x, y)

    return jax.tree.map(select, if_true, if_false)


def _rotate(tree: Any, steps: int) -> Any:
    """Pass what each stage holds on to the stage `steps` later; the last one's goes to the first."""

    def rotate(x: Array) -> Array:
        spec = jax.typeof(x).sharding.spec
        return per_device(_pass_on, spec, spec)(x)

    def _pass_on(x: Array) -> Array:
        stages = jax.lax.axis_size(STAGE_AXIS)
        pairs = [(stage, (stage + steps) % stages) for stage in range(stages)]
        return jax.lax.ppermute(x, STAGE_AXIS, pairs)

    return jax.tree.map(rotate, tree)
