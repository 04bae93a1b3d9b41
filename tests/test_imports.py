"""The rooms of the driver never load JAX. (tests/test_house.py holds the imports against the tables.)"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.rooms import ALLOWED

HARNESS = Path(__file__).parents[1] / "harness"

WITHOUT_JAX = (
    "harness.cli",
    "harness.compare",
    "harness.report",
    "harness.records",
    "harness.launcher.sweep",
    "harness.estimate",
    "harness.plan",
    "harness.aot.hlo",
    "harness.aot.protocol",
    "harness.worker.main",
    "harness.worker.describe",
)
SLOW = ("jax", "flax", "orbax", "scipy.stats", "torch")


@pytest.mark.parametrize("module", WITHOUT_JAX)
def test_the_driver_never_loads_jax(module):
    code = f"import sys, {module}; print([name for name in {SLOW} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_room_is_missing_from_the_table():
    rooms = {
        path.name.removesuffix(".py") for path in HARNESS.iterdir() if path.suffix == ".py" or path.is_dir()
    }
    assert rooms - {"__pycache__", "py.typed"} <= ALLOWED.keys()
