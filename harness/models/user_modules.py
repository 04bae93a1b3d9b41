"""Import of users' modules, which register the mechanisms that a config names."""

from __future__ import annotations

import importlib

from harness.config.schema.run import Config
from harness.core.errors import UserError


def import_modules(config: Config) -> None:
    """Import the modules listed in `config.imports`. Raises UserError for one that fails."""
    for name in config.imports:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise UserError(
                f"imports: '{name}' cannot be imported ({type(error).__name__}: {error})"
            ) from error
