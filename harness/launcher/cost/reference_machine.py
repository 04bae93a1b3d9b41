"""Times on a reference machine, from which those of any other are scaled: by its speeds, or by earlier runs.

The reference is one 2.8 GHz core of an Ice Lake Xeon without neighbours, with jax 0.10.2 and the CPU profile
of `harness.core.jax_setup.cpu_flags`. Rates are those of float32 steps of the demo's scales; seconds are CPU
seconds of processes of which each has a core to itself.
"""

from __future__ import annotations

from harness.launcher.cost.machine_speed import MachineSpeed

SPEED = MachineSpeed(arithmetic=7.55e10, compiling=920.0)
"""Speeds of the reference machine in the calibration."""
PRODUCT_RATE, HALF_WIDTH = 7.5e10, 80
"""FLOP/s of one core in the products of a wide model, and the model width at which a step has half of it:
FLOPs grow with the square of the width, the work between products with the width."""
PROCESS_SECONDS = 1.0
"""Seconds of a start that compiles nothing: a process, its data, its state, and programs from the cache."""
PROGRAM_SECONDS, LAYER_SECONDS = 2.8, 0.9
"""Seconds in which the programs of a run are traced and compiled: those without layers, and each layer."""
TOKENIZE_RATE = 8e5
"""Tokens in a second that one core reads and tokenises."""
DRIVER_SECONDS = 4.0
"""Seconds of a sweep without any run: the start of workers, comparison and report."""


def step_rate(model_width: int) -> float:
    """Return the FLOP/s of the steps of a model of this width on one core."""
    return PRODUCT_RATE * model_width / (model_width + HALF_WIDTH)


def startup_seconds(layers: int, *, compiles: bool) -> float:
    """Return the seconds until the first step. `layers`: layers that the program spells out, one of each
    stack. `compiles`: no earlier run has left its programs in the cache."""
    return PROCESS_SECONDS + compiles * (PROGRAM_SECONDS + LAYER_SECONDS * layers)
