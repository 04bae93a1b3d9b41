"""Configs of the texts that the words of the command name."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from harness.config.compose import sweep_configs
from harness.config.schema.run import Config
from harness.core.errors import UserError
from harness.core.hashing import hash_json

_OVERRIDE = re.compile(r"[+~]{0,2}[A-Za-z_][\w.@/-]*=")


def chosen_configs(options: argparse.Namespace) -> list[Config]:
    """Return a config for each path, or those of a sweep of the overrides. Raises UserError."""
    paths, overrides = _split_words(options.words)
    for key, value in (("data.tokenizer", options.tokenizer), ("data.holdout", options.holdout)):
        overrides += [] if value is None else [f"{key}={_quoted(str(value))}"]
    if paths:
        return [_config_of(path, options.column, overrides) for path in paths]
    if options.column is not None:
        raise UserError(
            f"--column={options.column} is for paths; with overrides write data.sources.NAME.column=..."
        )
    if not overrides:
        raise UserError("harness tokenize: name a path, or overrides such as experiment=attention")
    return _distinct(sweep_configs(overrides))


def _distinct(configs: Sequence[Config]) -> list[Config]:
    """Return a config for each choice of data among the runs of a sweep."""
    return [*{hash_json([config.data, config.evaluation.sets]): config for config in configs}.values()]


def _split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the paths and the overrides. A word that names a file is a path, whatever it looks like."""
    overrides = [word for word in words if _OVERRIDE.match(word) and not Path(word).exists()]
    return [word for word in words if word not in overrides], overrides


def _config_of(path: str, column: str | None, overrides: Sequence[str]) -> Config:
    columns = [] if column is None else [f"data.sources.own.column={_quoted(column)}"]
    source = ["data=own", f"data.sources.own.path={_quoted(path)}", *columns]
    return sweep_configs([*source, *overrides])[0]


def _quoted(text: str) -> str:
    """Return a text as Hydra reads it back, whatever it holds."""
    return "'" + text.replace("'", r"\'") + "'"
