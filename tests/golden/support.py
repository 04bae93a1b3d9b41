"""What the golden tests share: the command in a process of its own, the stored sweep, and folded names.

Nothing here imports the harness but by its command, so that a module may be moved or renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
COMMAND = (HERE / "command.txt").read_text().split()
"""Of the stored sweep: 2 variants, 1 scale, 3 seeds, 120 steps."""
SWEEP = Path("runs/golden")
UNFINISHED = "xs/short/seed2"
"""Killed at step 60, with checkpoints at 20 and 40 and half a one at 51."""
FINISHED = ("xs/mha/seed0", "xs/mha/seed1", "xs/mha/seed2", "xs/short/seed0", "xs/short/seed1")
PLANS = {
    "plan_attention": ["experiment=attention"],
    "plan_colossus2": ["experiment=colossus2", "roster=frontier", "cluster=colossus2"],
    "plan_layers": [
        "experiment=colossus2", "roster=frontier", "cluster=colossus2", "member=1t_a",
        "--compile", "abstract",
    ],
}  # fmt: skip
CALL = "import sys; from harness.cli import main; sys.exit(main())"
SIZES = ("xs", "s", "m", "124m", "350m", "1b", "3b", "8b")
RECIPE = ("scale", "model", "compute", "data", "optimizer", "schedule", "evaluation", "checkpoint")
"""Nodes of a config that a size's recipe may set."""
SHOW_SIZES = """
import sys
from harness.cli import main
for size in sys.argv[1:]:
    print(f"size: {size}", flush=True)
    main(["train", f"size={size}", "--cfg", "job", "--resolve"])
"""


def harness(*arguments: str, cwd: Path, cache: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command in a fresh process, as a user would."""
    return python(CALL, *arguments, cwd=cwd, cache=cache)


def python(code: str, *arguments: str, cwd: Path, cache: Path | None = None):
    """Run Python code in a fresh process, without the devices that the tests simulate."""
    kept = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS" and not k.startswith("JAX_")}
    env = kept | {"AB_HARNESS_CACHE": str(cache or lasting_cache())}
    line = [sys.executable, "-c", code, *arguments]
    return subprocess.run(line, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=300)


def lasting_cache() -> Path:
    """Name a cache that outlives the tests, apart from what real sweeps have taught the user's own."""
    root = os.environ.get("AB_HARNESS_CACHE") or Path.home() / ".cache" / "ab-harness"
    return Path(root).expanduser() / "test-golden"


def plan_cache() -> Path:
    """Name a lasting cache in which nothing is ever trained: what was learnt there would be in a plan."""
    return lasting_cache() / "plans"


def unpack(folder: Path) -> Path:
    """Unpack the stored sweep, and return the folder that its command is given in."""
    with tarfile.open(HERE / "sweep.tar.gz") as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and newer
        archive.extractall(folder)
    return folder


def recipes(cwd: Path) -> dict[str, str]:
    """Show the resolved recipe of each size, as YAML, from one process."""
    done = python(SHOW_SIZES, *SIZES, cwd=cwd)
    assert done.returncode == 0, done.stderr
    shown = re.findall(r"^size: (\S+)\n(.*?)(?=^size: |\Z)", done.stdout, re.MULTILINE | re.DOTALL)
    return {name: "".join(_nodes(text, RECIPE)) for name, text in shown}


def _nodes(text: str, names: tuple[str, ...]) -> Iterator[str]:
    """Yield the nodes of a YAML text with these names, as they are written."""
    for node in re.split(r"^(?=\S)", text, flags=re.MULTILINE):
        if node.partition(":")[0] in names:
            yield node


def said_json(done: subprocess.CompletedProcess[str], *statuses: int) -> Any:
    """Read what a command printed as JSON, once it has ended as it should."""
    assert done.returncode in (statuses or (0,)), done.stderr
    return json.loads(done.stdout)


def expected() -> dict[str, Any]:
    """Read what the stored sweep gave when it was stored."""
    return json.loads((HERE / "expected.json").read_text())


def compared(cwd: Path) -> dict[str, Any]:
    """Compare the sweep, and leave out how long that took."""
    found = said_json(harness("compare", str(SWEEP), "--json", cwd=cwd))
    found["times"].pop("compare_seconds")
    return found


def key_paths(node: Any, path: str = "") -> Iterator[str]:
    """Yield the path of every leaf and list, with the keys that are data folded."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from key_paths(value, f"{path}.{_folded(key, path)}".removeprefix("."))
        return
    yield f"{path}[]" if isinstance(node, list) else path
    for value in node if isinstance(node, list) else ():
        if isinstance(value, dict | list):
            yield from key_paths(value, f"{path}[]")


def _folded(key: str, path: str) -> str:
    if path.endswith("versions"):
        return "<package>"
    if "/" in key:
        return "<run>"
    names = {"mha": "<variant>", "short": "<variant>", "xs": "<scale>"}
    return "<hash>" if re.fullmatch("[0-9a-f]{16}", key) else names.get(key, key)


def file_names(folder: Path) -> set[str]:
    """List the files below a folder, with steps, hashes and process ids folded. Orbax leaves a folder of each
    of its processes in a checkpoint that it wrote itself, which is merged and read by nobody."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {fold_name(name) for name in names if "/ocdbt.process_" not in name}


def fold_name(name: str) -> str:
    """Fold the hashes, steps and process ids of a file's name."""
    name = re.sub(r"(?<![0-9a-f])([0-9a-f]{32}|[0-9a-f]{16})(?![0-9a-f])", "<hash>", name)
    return re.sub(r"\d+\.\d+\.tmp", "<pid>.tmp", re.sub(r"(?<!\d)\d{8}(?!\d)", "<step>", name))


def check_list(name: str, found: set[str]) -> None:
    """Compare lines with a stored list, and say which were added and removed."""
    stored = {*(HERE / f"{name}.txt").read_text().splitlines()}
    added, removed = sorted(found - stored), sorted(stored - found)
    assert not added, f"{name}: added {added}, removed {removed}"
    assert not removed, f"{name}: removed {removed}"


def content(folder: Path) -> dict[str, str]:
    """Hash every file below a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def give_other_code(run: Path) -> None:
    """Write another code hash into a run's record, and seal it again."""
    record = json.loads((run / "run.json").read_text())
    record.pop("checksum")
    record["code_hash"] = "f" * 64
    record["checksum"] = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    (run / "run.json").write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a record."""
    return json.loads(path.read_text())


def one_seed() -> list[str]:
    """Give the command of the stored sweep, with its first seed alone."""
    return [each if not each.startswith("seed=") else "seed=0" for each in COMMAND]


def tensor_hash(file: Path) -> str:
    """Hash the tensors of an exported model by name, shape and bits."""
    from safetensors.numpy import load_file

    total = hashlib.sha256()
    for name, tensor in sorted(load_file(file).items()):
        total.update(f"{name} {tensor.dtype} {tensor.shape}".encode() + tensor.tobytes())
    return total.hexdigest()
