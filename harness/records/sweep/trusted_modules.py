"""Users' modules that a command may run because a recorded run lists them in `imports`.

A config that came from somebody else names code to run. A command that imports it asks first, unless this
user trained the sweep: training stores in the cache folder which modules it imported, and from where. The
questions of the harness are its own code.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.config.users_modules import origin_of, question_file
from harness.core.cache.cache_entries import CacheEntry
from harness.core.errors import UserError
from harness.records.paths import SweepDir
from harness.records.run.find_checkpoint import RunRef


def remember_modules(sweep: SweepDir, imports: Sequence[str]) -> None:
    """Store that this user trained a sweep with these modules."""
    if imports:
        _entry(sweep).write_json(_stored(sweep) | _origins(imports))


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
    return {name: origin_of(name) for name in imports if question_file(name) is None}


def _stored(sweep: SweepDir) -> dict[str, str]:
    content = _entry(sweep).read_json()
    return content if isinstance(content, dict) else {}


def _entry(sweep: SweepDir) -> CacheEntry:
    return CacheEntry("trusted", "", str(sweep.path.resolve()))
