"""Malformed records, drawn by a seed: what machines, disks and strangers can leave in a sweep's files."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from harness.core import atomic_files
from harness.records.paths import SweepDir

ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 60)
)
"""3 kB of YAML that expand to 9^60 nodes."""
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i}\n  <<: [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
"""Merge keys that expand while YAML is read."""
TEXTS = [
    "", "null", "3", '"x"', "{}", "[]", "{", "[" * 100_000, "{" * 100_000, '{"a":' * 100_000, "1" * 5000,
    "seed: " + "1" * 5000 + "\n", '{"seed": ' + "1" * 5000 + "}", ALIASES, MERGES, "\t- x", "- " * 100_000,
    "a: &a [*a]", "\0" * 100, "!!python/object/apply:os.system [x]", "2024-99-99", '{"checksum": {}}',
    "{? [1] : 2}", "\ufeff{}", "NaN", "-Infinity", "<<: 3",
]  # fmt: skip
VALUES = [
    None, True, -1, 0, 10**30, 10**400, 1e308, float("inf"), float("nan"), "", "x", "\x1b[31m", "../../x",
    [], [1], [[]], {}, {"a": 1}, {"step": "x"}, "9" * 5000, 2**63, -(2**63), "\ud800", ["x"] * 50,
]  # fmt: skip


def flip_bit(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def truncate(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def other_text(path: Path, rng: random.Random) -> None:
    path.write_text(rng.choice(TEXTS))


def not_text(path: Path, rng: random.Random) -> None:
    path.write_bytes(rng.randbytes(200))


def other_file(path: Path, rng: random.Random) -> None:
    """Put a folder, a pipe, a link to nothing, an endless device, or nothing in a file's place."""
    path.unlink()
    kind = rng.randrange(5)
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        os.mkfifo(path)
    elif kind < 4:
        path.symlink_to(["nowhere", "/dev/zero"][kind - 2])


def other_value(path: Path, rng: random.Random) -> None:
    """Replace, remove or add a value anywhere, and seal the file again."""
    if path.suffix == ".parquet":
        return other_column(path, rng)
    if path.suffix not in (".json", ".yaml"):
        return not_text(path, rng)
    text = path.read_text()
    if path.suffix == ".yaml":
        content = yaml.safe_load(text)
        change_value(content, rng)
        body = yaml.safe_dump(content, sort_keys=False, allow_unicode=False)
        seal = hashlib.sha256(body.encode(errors="surrogatepass")).hexdigest()
        path.write_text(f"{body}# sha256 of the lines above: {seal}\n", errors="replace")
    elif path.name == "sweep.json":
        content = [json.loads(line) for line in text.splitlines()]
        change_value(content, rng)
        path.write_text("".join(json.dumps(entry) + "\n" for entry in content))
    else:
        content = json.loads(text)
        content.pop("checksum", None)
        change_value(content, rng)
        path.write_text(json.dumps(content | {"checksum": atomic_files.json_checksum(content)}))
    return None


def change_value(node: Any, rng: random.Random) -> None:
    """Change one value below a node, in place."""
    while isinstance(node, dict | list) and node:
        key: Any = rng.choice([*node]) if isinstance(node, dict) else rng.randrange(len(node))
        child = node[key]
        if isinstance(child, dict | list) and child and rng.random() < 0.8:
            node = child
            continue
        if isinstance(node, dict) and rng.random() < 0.2:
            del node[key]
        else:
            node[key] = rng.choice(VALUES)
        return


def other_column(path: Path, rng: random.Random) -> None:
    """Give a part a column of another type, of nulls or odd numbers, or too few, and a name that fits."""
    frame = pl.read_parquet(path)
    name = rng.choice(frame.columns)
    odd = rng.choice([None, -1, 0, 2**62, float("nan"), float("inf"), 1e308])
    change: Callable[[], pl.DataFrame] = rng.choice([
        lambda: frame.with_columns(pl.col(name).cast(pl.String)),
        lambda: frame.drop(name),
        lambda: frame.with_columns(pl.lit(None, frame.schema[name]).alias(name)),
        lambda: frame.with_columns(pl.lit(None).alias(name)),
        lambda: frame.with_columns(pl.lit(odd).cast(frame.schema[name], strict=False).alias(name)),
        lambda: frame.with_columns(pl.concat_list(pl.col(name)).alias(name)),
        lambda: frame.clear(),
        lambda: pl.DataFrame(),
        lambda: frame.head(1),
        lambda: pl.concat([frame] * 3),
    ])  # fmt: skip
    buffer = io.BytesIO()
    change().write_parquet(buffer)
    checksum = hashlib.sha256(buffer.getvalue()).hexdigest()[:16]
    path.unlink()
    (path.parent / f"{path.name.split('.')[0]}.{checksum}.parquet").write_bytes(buffer.getvalue())


DAMAGES = (flip_bit, truncate, other_text, not_text, other_file, other_value, other_value, other_value)


def malform(sweep: SweepDir, rng: random.Random) -> str:
    """Damage one file of a sweep, and return how."""
    files = sorted(path for path in sweep.path.parent.rglob("*") if path.is_file())
    small = [path for path in files if path.parent in (sweep.path, sweep.path.parent / "null")]
    path = rng.choice(small if rng.random() < 0.3 else files)
    damage = rng.choice(DAMAGES)
    damage(path, rng)
    return f"{damage.__name__} of {path.relative_to(sweep.path.parent)}"


def copy(sweep: SweepDir, folder: Path) -> SweepDir:
    """Copy a sweep with its neighbours to a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sweep.path.parent, folder)
    return SweepDir(folder / sweep.path.name)
