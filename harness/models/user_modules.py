"""Users' own modules, imported so that what they register can be chosen."""

from __future__ import annotations

import importlib

from harness.config.schema.run import Config
from harness.core.errors import UserError


def import_modules(config: Config) -> None:
    """Users' modules, so that what they register is there. Raises UserError for one that fails."""
    for name in config.imports:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise UserError(
                f"imports: '{name}' cannot be imported ({type(error).__name__}: {error})"
            ) from error
