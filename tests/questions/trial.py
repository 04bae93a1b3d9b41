"""One question tried: composed beside its control, vetted, and trained for a few steps at a tiny size."""

from __future__ import annotations

import time
import traceback
from pathlib import Path

import jax
import numpy as np

from harness.config.compose import compose
from harness.config.pair_check import check_block
from harness.config.schema.run import Config, num_steps
from harness.config.variants.question_group import GROUP
from harness.config.variants.question_sweep import CONTROL
from harness.core.errors import UserError
from harness.data import open_data
from harness.models import Model
from harness.training.parent_checkpoint import rebuild_model
from harness.training.programs.run_programs import RunPrograms, make_run_programs
from harness.training.schedule import main_segment
from harness.training.step_inputs import step_inputs
from harness.worker.describe import describe
from tests.questions.results import Trial

SIZES = ("tiny", "small")
"""Sizes of conf/scale/ beside this file, tried in this order: a question may need more layers than two."""
_CONF = Path(__file__).parent / "conf"


class _NotFinite(Exception):
    """Losses that are not finite, which a larger model does not mend."""


def try_question(name: str) -> Trial:
    """Try a question at each size until one works."""
    start, problem = time.perf_counter(), ""
    for size in SIZES:
        try:
            _train_beside_control(name, size)
            return Trial(name, "", size, time.perf_counter() - start)
        except UserError as error:
            problem = problem or str(error)
        except _NotFinite as error:
            problem = str(error)
            break
        except Exception as error:
            problem = _one_line(error)
            break
        finally:
            jax.clear_caches()  # a process tries many questions
    return Trial(name, problem, SIZES[0], time.perf_counter() - start)


def _one_line(error: Exception) -> str:
    """Return the first line of an error that no user should see, and where it was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__} in {Path(frame.filename).name}, line {frame.lineno}: {text}"


def _train_beside_control(name: str, size: str) -> None:
    """Train a question. Raises UserError for what a sweep refuses."""
    place = [f"hydra.searchpath=[file://{_CONF}]", f"scale={size}"]
    config = compose([f"{GROUP}={name}", *place])
    modules = f"imports=[{','.join(config.imports)}]"
    control = compose([f"{GROUP}={config.rule.control or CONTROL}", *place, modules])
    check_block([control, config], name)
    model = rebuild_model(config, describe(config))
    _train(_programs(config, model))


def _programs(config: Config, model: Model) -> RunPrograms:
    data = open_data(config.data)
    sampler = data.sampler(config.scale.batch, config.data_seed)
    heldout = data.heldout(config.evaluation.tokens)
    devices = jax.devices()[: config.mesh.devices]
    return make_run_programs(config, model, devices, sampler.batch, heldout, cached=False)


def _train(programs: RunPrograms) -> None:
    config, state = programs.config, programs.init_state()
    segment, losses = main_segment(config), []
    for step in range(num_steps(config)):
        inputs = step_inputs(config, segment, step, clock=programs.has_clock)
        state, metrics = programs.step(state, programs.put_batch(programs.get_batch(step)), inputs)
        losses.append(float(metrics[0]))
    losses += [result[0] for result in programs.evaluate(state).values()]
    if not np.isfinite(losses).all():
        raise _NotFinite(f"the losses of its steps and of held-out data are {losses}.")
