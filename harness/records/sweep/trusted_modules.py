"""Users' modules that a command may run because a recorded run lists them in `imports`.

A config that came from somebody else names code to run. A command that imports it asks first, unless this
user trained the sweep: training stores in the cache folder which modules it imported, and from where.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from harness.config.users_modules import origin_of
from harness.core import atomic_files
from harness.core.cache.cache_dir import cache_dir
from harness.core.errors import UserError
from harness.records.paths import SweepDir
from harness.records.run.find_checkpoint import RunRef


def remember_modules(sweep: SweepDir, imports: Sequence[str]) -> None:
    """Store that this user trained a sweep with these modules."""
    if imports:
        content = {"sweep": str(sweep.path.resolve()), "modules": _stored(sweep) | _origins(imports)}
        atomic_files.write_json(_path(sweep), content)


def check_trusted(*runs: RunRef, trust: bool) -> None:
    """Raise UserError if a run imports modules that this user has not trained with; `trust` allows all."""
    for run in [run for run in runs if run.config.imports and not trust]:
        unknown = _origins(run.config.imports).items() - _stored(run.sweep).items()
        if unknown:
            names = ", ".join(f"{name} ({origin or 'not found'})" for name, origin in sorted(unknown))
            raise UserError(
                f"{run.run.path}: its config imports {names}, which would run that code. Read it, and add "
                "--trust (in Python trust=True) if you trust it."
            )


def _origins(imports: Sequence[str]) -> dict[str, str]:
    return {name: origin_of(name) for name in imports}


def _stored(sweep: SweepDir) -> dict[str, str]:
    content = atomic_files.read_json(_path(sweep))
    return content["modules"] if isinstance(content, dict) else {}


def _path(sweep: SweepDir) -> Path:
    name = hashlib.sha256(str(sweep.path.resolve()).encode()).hexdigest()
    return cache_dir("trusted") / f"{name}.json"
