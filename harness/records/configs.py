"""The resolved config of a run as YAML: the launcher writes it, the worker reads it."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from harness.config.errors import UserError
from harness.config.identity import plain
from harness.config.schema import Config, typed
from harness.records import atomic


def write_config(path: Path, config: Config) -> None:
    atomic.write_text(path, OmegaConf.to_yaml(OmegaConf.create(plain(config))))


def read_config(path: Path) -> Config:
    """Raises UserError where the file is missing, damaged or of another schema."""
    try:
        return typed(OmegaConf.load(path))
    except OSError as error:
        raise UserError(f"{path}: no resolved config can be read there ({error.strerror})") from error
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read as a config: {reason}") from error
