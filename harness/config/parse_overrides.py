"""Hydra's parser of overrides, asked once for each text: a sweep repeats the same few in every job."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Parse overrides. Equal texts share one result: do not change it. Raises Hydra's errors."""
    return [_parse_override(text) for text in overrides]


@functools.lru_cache(maxsize=65_536)
def _parse_override(text: str) -> Override:
    return OverridesParser.create().parse_overrides([text])[0]
