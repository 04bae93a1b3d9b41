"""The argument parser of every verb."""

from __future__ import annotations

import argparse
from typing import NoReturn

from harness.core.errors import UserError


class Options(argparse.ArgumentParser):
    """Options whose mistakes are said in one sentence."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}; `{self.prog} --help` shows an example")
