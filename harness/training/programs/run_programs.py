"""Everything one run trains with: its devices, its compiled programs, its batches."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax import P
from jax.sharding import Mesh, NamedSharding

from harness.config.schema.run import Config
from harness.core.cache.cache_entries import print_note
from harness.core.progress.report import report
from harness.data import Batch, HeldOut, PCAFeatures
from harness.models import Model
from harness.models.families.model_family import NATS, configured_family
from harness.parallel.processes.agreement import put_sharded
from harness.parallel.sharding.axis_rules import addressable_rows, batch_sharding
from harness.parallel.sharding.mesh import abstract_mesh, lane_mesh
from harness.training.optimizers.rounding.stored_dtypes import with_seed
from harness.training.programs.compile_cache import Program
from harness.training.programs.evaluate import DomainResult, evaluate_domains, map_batches
from harness.training.programs.metric_columns import evaluation_columns, step_columns
from harness.training.programs.open_program import open_program, remove_stored_program
from harness.training.programs.program_specs import ProgramSpecs, batch_parts
from harness.training.programs.stored_executable import Device
from harness.training.schedules.values import constant_values
from harness.training.step import METRICS, TrainState
from harness.training.step_inputs import StepInputs
from harness.training.trainable.draw_params import draw_params
from harness.training.trainable.trainable_model import Params, TrainableModel, split_trainable

TRAINING_PROGRAMS = ("init", "step", "evaluate")
"""Programs that the training loop calls."""


@dataclass(frozen=True)
class RunPrograms:
    """Programs of one run on its sub-mesh, independent of files and of other runs. Compiled programs carry
    their shardings, so calls need no mesh in context; only tracing enters the mesh."""

    config: Config
    model: Model
    mesh: Mesh
    get_batch: Callable[[int], Batch]
    heldout: Mapping[str, HeldOut]
    features: PCAFeatures | None = None
    """Features of real images, to which samples are compared; None for text."""
    cached: bool = True
    """Whether compiled programs are read from the cache and stored there."""
    note: Callable[[str], None] = print_note
    """Receiver of a sentence about a damaged entry of the cache."""

    @property
    def devices(self) -> Sequence[Device]:
        """Devices of the mesh, in mesh order."""
        return list(self.mesh.devices.flat)

    @property
    def local_devices(self) -> Sequence[Device]:
        """Devices of the mesh in this process."""
        return self.mesh.local_devices

    @property
    def tokens_per_step(self) -> int:
        """Number of tokens that one step trains on."""
        return self.config.scale.batch * self.config.data.sequence_length

    def init_state(self, weights: Params | None = None) -> TrainState:
        """Return the state of step 0. Its parameters are `weights` (by stored path, on these devices) if any;
        all others are drawn by path and seed."""
        shardings, weights = self._specs.param_shardings, weights or {}
        to_draw = {path: sharding for path, sharding in shardings.items() if path not in weights}
        progress = functools.partial(report, "draws parameters", total=1.0)
        drawn_params = draw_params(self.trainable_model, self.config.seed, to_draw, progress)
        params = {path: (weights | drawn_params)[path] for path in shardings}
        trainable, _ = split_trainable(params, self.trainable_model.trainable_paths)
        return TrainState(params, with_seed(self._program_init(trainable), self.config.seed))

    def abstract_state(self) -> TrainState:
        """Return the specs of the state, with shardings."""
        return self._specs.state

    def put_batch(self, batch: Batch) -> jax.Array:
        """Put a batch on the devices, as [micro-batches, sequences, T+1]."""
        tokens_BT1 = batch.tokens_BT
        return put_sharded(tokens_BT1.reshape(self._specs.batch_shape), self._specs.batch_sharding)

    def step(self, state: TrainState, tokens_MBT1: jax.Array, inputs: StepInputs):
        """Return (state, metrics) after one update. The argument `state` is donated."""
        scalars = inputs._replace(learning_rate=np.float32(inputs.learning_rate))
        scalars = scalars.with_values(self._constant_values)
        return self._program_step(state, tokens_MBT1, scalars)

    @property
    def has_clock(self) -> bool:
        """True if anything in the run asks for the place of a step (`StepInputs.clock`)."""
        return self._specs.has_clock

    def step_values(self, metrics: jax.Array) -> dict[str, float]:
        """Return the values of a step's metrics by column. The last two of METRICS need experts."""
        values = [*map(float, np.asarray(metrics))]
        count = len(values) - len(self._step_columns)
        return dict(zip((*METRICS[:count], *self._step_columns), values, strict=True))

    def evaluate(self, state: TrainState) -> dict[str, DomainResult]:
        """Return the result of each held-out domain."""
        rows, length = self._specs.batch_shape[1], self.config.data.sequence_length
        program, sharding = self._program_evaluate, self._specs.row_sharding
        params, columns = self._judged(state), self._evaluation_columns
        return evaluate_domains(program, params, self._measured_rows, rows, length, sharding, columns)

    @functools.cached_property
    def _measured_rows(self) -> Mapping[str, HeldOut]:
        """Held-out rows, without their bytes if the loss is in another unit than nats a token: bits a byte
        would be made of it."""
        if configured_family(self.config).entry.loss_unit == NATS:
            return self.heldout
        return {name: dataclasses.replace(rows, bytes=0) for name, rows in self.heldout.items()}

    def sample(self, state: TrainState, rows_NR: np.ndarray, guidance: float) -> np.ndarray:
        """Sample images, uint8 [N, H, W, C], for the labels and noise keys of `rows_NR`."""

        params = self._judged(state)

        def sample_batch(rows_BR: np.ndarray) -> jax.Array:
            rows = put_sharded(rows_BR, self._specs.row_sharding)
            return self._program_sample(params, rows, np.float32(guidance))

        return map_batches(sample_batch, rows_NR, self._specs.batch_shape[1])

    def prepare(self) -> tuple[Program, ...]:
        """Compile or load every program that the training loop calls."""
        programs = self._program_init, self._program_step, self._program_evaluate
        return (*programs, self._program_judged) if self._judges_others else programs

    @property
    def trainable_model(self) -> TrainableModel:
        """Model with its trainable parameters."""
        return self._specs.trainable_model

    def remove_stored(self) -> None:
        """Remove the run's compiled programs from the cache, to be compiled again."""
        for name in (*TRAINING_PROGRAMS, *(["judged"] if self._judges_others else [])):
            remove_stored_program(name, self._abstract_specs, self.devices, self.note)

    def _judged(self, state: TrainState) -> Params:
        """Return the parameters that are evaluated and sampled."""
        return self._program_judged(state) if self._judges_others else state.params

    @property
    def _judges_others(self) -> bool:
        return self._specs.optimizer.judges_others

    @functools.cached_property
    def _specs(self) -> ProgramSpecs:
        return ProgramSpecs(self.config, self.model, self.mesh)

    @functools.cached_property
    def _abstract_specs(self) -> ProgramSpecs:
        return ProgramSpecs(self.config, self.model, abstract_mesh(self.config.mesh))

    @functools.cached_property
    def _constant_values(self) -> dict[str, jax.Array]:
        """Arguments of the step that stay the same, kept on the devices."""
        everywhere = NamedSharding(self.mesh, P())
        values = constant_values(self.config).items()
        return {key: put_sharded(np.asarray(value, np.float32), everywhere) for key, value in values}

    @functools.cached_property
    def _step_columns(self) -> list[str]:
        return step_columns(self._specs)

    @functools.cached_property
    def _evaluation_columns(self) -> list[str]:
        return evaluation_columns(self._specs)

    @functools.cached_property
    def _program_init(self) -> Program:
        return self._compile("init")

    @functools.cached_property
    def _program_step(self) -> Program:
        return self._compile("step")

    @functools.cached_property
    def _program_evaluate(self) -> Program:
        return self._compile("evaluate")

    @functools.cached_property
    def _program_judged(self) -> Program:
        return self._compile("judged")

    @functools.cached_property
    def _program_sample(self) -> Program:
        return self._compile("sample")

    def _compile(self, name: str) -> Program:
        return open_program(name, self._abstract_specs, self.devices, cached=self.cached, note=self.note)


def local_rows(config: Config, devices: Sequence[Device]) -> np.ndarray | None:
    """Return the mask of the batch rows that this process feeds; None: all. Raises UserError."""
    count, sequences = batch_parts(config)
    rows = batch_sharding(lane_mesh(devices, config.mesh), sequences)
    return addressable_rows(NamedSharding(rows.mesh, P(None, *rows.spec)), (count, sequences, 1))


def make_run_programs(
    config: Config,
    model: Model,
    devices: Sequence[Device],
    get_batch: Callable[[int], Batch],
    heldout: Mapping[str, HeldOut],
    features: PCAFeatures | None = None,
    *,
    cached: bool = True,
) -> RunPrograms:
    """Build the programs of a run on exactly these devices; `cached` as in RunPrograms. Raises UserError if
    the mesh does not fit."""
    mesh = lane_mesh(devices, config.mesh)
    return RunPrograms(config, model, mesh, get_batch, heldout, features, cached)
