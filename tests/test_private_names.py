"""Private names of JAX and its libraries: each lies in one file, and here is what breaks without it.

Where a row fails with a new version, either find the new name, in the one file, or give up what it is for.
"""

import ast
import importlib
import re
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("harness", "hydra_plugins", "experiments")


@dataclass(frozen=True)
class PrivateName:
    file: str
    module: str
    name: str
    without_it: str


JOIN = "harness/parallel/processes/private_jax.py"
SAVE = "harness/training/output/orbax_state.py"
TABLE = (
    PrivateName(
        *("harness/training/programs/stored_executable.py", "jax._src.compiler", "compile_or_get_cached"),
        "programs are compiled at each start instead of loaded, and each says so",
    ),
    PrivateName(
        *("harness/parallel/sharding/shard_map_patch.py", "jax._src.shard_map", "_shardy_shard_map_sharding"),
        "a JAX that gathers at the edge of a shard_map goes on: see test_shard_map_patch.py",
    ),
    PrivateName(JOIN, "jax._src.distributed", "global_state.client", "a run has one process at most"),
    PrivateName(JOIN, "jax._src.xla_bridge", "make_cpu_client", "gloo listens on every address"),
    PrivateName(JOIN, "jax._src.lib", "_jax.make_gloo_tcp_collectives", "gloo listens on every address"),
    PrivateName(
        *("harness/models/counting/jaxpr.py", "jax.interpreters.partial_eval", "dce_jaxpr"),
        "what a step executes is not counted, and no model of one's own starts",
    ),
    PrivateName(
        *(SAVE, "orbax.checkpoint._src.serialization.types", "TransferPriority"),
        "a state without room for a copy is not saved in pieces",
    ),
    PrivateName(
        *(SAVE, "orbax.checkpoint._src.serialization.types", "DefaultSerializationStatusCallback"),
        "a state without room for a copy is not saved in pieces",
    ),
    PrivateName(
        *(SAVE, "orbax.checkpoint.experimental.v1", "save_checkpointables_async"),
        "nothing is saved",
    ),
)
PRIVATE = re.compile(r"\b_src\b|^jax\.(interpreters|core|lib)\b|^orbax\.checkpoint\.experimental\b")
REMOVED = re.compile(
    r"jax\.experimental\.(shard_map|pjit|maps)|jax\.(pmap|tree_map|xla_computation)\b|jax\.random\.PRNGKey"
    r"|jax\.device_put_(replicated|sharded)|jax\.ad_checkpoint\.(checkpoint|remat)\b|flax\.(linen|training)"
)
VERSION = re.compile(r"(jax|jaxlib|flax|optax|orbax)[\w.]*\.__version__")


def sources():
    """(file, text) of each file of the packages."""
    for path in (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))):
        yield path.relative_to(ROOT).as_posix(), path.read_text()


def imports(text):
    """Full names of all that a file imports."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_each_private_name_lies_in_its_own_file():
    used = {(file, name) for file, text in sources() for name in imports(text) if PRIVATE.search(name)}
    listed = {(row.file, f"{row.module}.{row.name}.") for row in TABLE}

    def is_listed(file, name):
        return any(file == own and full.startswith(f"{name}.") for own, full in listed)

    assert [each for each in used if not is_listed(*each)] == [], "give it a file of its own and a row above"
    files = {}
    for row in TABLE:
        assert files.setdefault(row.module, row.file) == row.file, "two files use the same module"


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_the_private_name_is_still_there(row):
    try:
        attrgetter(row.name)(importlib.import_module(row.module))
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{error}. Without it, {row.without_it}: see {row.file}.")


@pytest.mark.parametrize("pattern", [REMOVED, VERSION], ids=["removed", "version"])
def test_no_file_uses_what_jax_removes_or_asks_for_a_version(pattern):
    """What a JAX can do is tried; its version says nothing."""
    assert [(file, found[0]) for file, text in sources() for found in pattern.finditer(text)] == []
