"""Imports point one way, and the rooms of the driver never load JAX."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).parents[1] / "harness"

ALLOWED = {
    "core": set(),
    "config": {"core"},
    "records": {"core", "config"},
    "parallel": {"core", "config", "models"},
    "models": {"core", "config", "parallel"},
    "data": {"core", "config"},
    "training": {"core", "config", "records", "models", "data", "parallel"},
    "worker": {"core", "config", "records", "models", "data", "parallel", "training"},
    "compare": {"core", "records"},
    "report": {"core", "config", "records", "compare"},
    "launcher": {"core", "config", "records", "compare", "report", "cli"},
    "aot": {"core", "config", "records", "models", "parallel", "training", "worker"},
    "plan": {"core", "config", "records", "compare", "report", "aot"},
    "inspection": {
        *("core", "config", "records", "compare", "models", "data", "parallel", "training", "worker")
    },
    "cli": {
        *("core", "config", "records", "compare", "report", "launcher", "plan", "inspection", "worker", "aot")
    },
    "train": {"cli"},
}
"""What each room may know. `parallel` knows the parameter specs of `models` as a type alone."""

WITHOUT_JAX = (
    "harness.cli",
    "harness.compare",
    "harness.report",
    "harness.records",
    "harness.launcher.sweep",
    "harness.plan",
    "harness.aot.hlo",
)
SLOW = ("jax", "flax", "orbax", "scipy.stats", "torch")


def room(path: Path) -> str:
    return path.relative_to(HARNESS).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Rooms of the harness that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("harness.")}
    return found


@pytest.mark.parametrize(
    "path", sorted(HARNESS.rglob("*.py")), ids=lambda path: str(path.relative_to(HARNESS))
)
def test_imports_point_one_way(path):
    if path.parent == HARNESS and path.name == "__init__.py":
        assert imports(path) <= {"compare", "report", "inspection"}
        return
    here = room(path)
    assert here in ALLOWED, f"harness/{here} is not in the table of rooms"
    assert imports(path) - {here} <= ALLOWED[here]


@pytest.mark.parametrize("module", WITHOUT_JAX)
def test_the_driver_never_loads_jax(module):
    code = f"import sys, {module}; print([name for name in {SLOW} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_room_is_missing_from_the_table():
    rooms = {
        path.name.removesuffix(".py") for path in HARNESS.iterdir() if path.suffix == ".py" or path.is_dir()
    }
    assert rooms - {"__init__", "__pycache__", "py.typed"} == ALLOWED.keys()
