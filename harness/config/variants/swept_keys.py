"""Variants of a sweep over one key: each value becomes a variant that declares the key."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.types import Override, QuotedString

from harness.config.parse_overrides import parse_overrides
from harness.config.run_identity import VOLATILE
from harness.core.errors import UserError

AXES = ("variant", "question", "scale", "seed", "member")
"""Keys that name a run; with a key below them, such as `variant.name`."""
ONE_VALUE = {
    **dict.fromkeys(VOLATILE, "it does not change what a run learns. Start a command for each value"),
    "mesh": "a pair trains on one mesh. Start a command for each value, with an experiment_name of its own",
    "tracker": "a sweep is mirrored in one way. Several trackers are a list: 'tracker=[tensorboard,wandb]'",
    "data_seed": "the variants of a pair read the same examples. Sweep seed instead, which it follows",
    "experiment_name": "one command trains one experiment. Start a command for each",
    "imports": "all runs import the same modules. List all of them in one value",
}
"""Nodes that cannot be a variant, each with the reason and the way out."""
TUNED = "optimizer.learning_rate"

Job = Sequence[str]
"""Overrides of one run, `key=value`, as Hydra's sweeper makes them; the same keys in every job."""


def name_variants(jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs with a variant for each value, if they differ in a key that names no run. The first
    value is the control, unless `rule.control` names one. Raises UserError for a key that cannot be a
    variant, or for a second swept key."""
    parsed = [parse_overrides(job) for job in jobs]
    keys = [override.key_or_group for override in parsed[0]] if parsed else []
    values = {key: {job[place] for job in jobs} for place, key in enumerate(keys)}
    swept = [key for key, texts in values.items() if len(texts) > 1 and not key.startswith("hydra")]
    others = [key for key in swept if not _is_axis(key)]
    if not others or "variant.name" in keys:
        return [*jobs]
    _check(others, swept, "tune=lr" in jobs[0])
    place = keys.index(others[0])
    names = [_variant_name(overrides[place]) for overrides in parsed]
    control = [] if "rule.control" in keys else [f"rule.control='{names[0]}'"]
    return [
        [*job, f"variant.name='{name}'", f"variant.touches=[{_touched_node(others[0])}]", *control]
        for job, name in zip(jobs, names, strict=True)
    ]


def _is_axis(key: str) -> bool:
    return key in AXES or key in ("variant.name", "scale.name")


def _touched_node(key: str) -> str:
    """Return the node that a variant declares: other weights or files of the sources are other data."""
    return "data" if key.startswith("data.sources.") else key


def _check(others: Sequence[str], swept: Sequence[str], is_tuned: bool) -> None:
    key = others[0]
    node = key.partition(".")[0]
    if is_tuned and key == TUNED:
        raise UserError(
            f"{key} has several values, but tune=lr chooses it, from a bracket around one value. Give one "
            "value (tune.points and tune.factor set the bracket), or remove tune=lr."
        )
    if key in ONE_VALUE or node in ONE_VALUE:
        raise UserError(f"{key} has several values, but {ONE_VALUE.get(key, ONE_VALUE.get(node))}.")
    if node == "scale" and key != "scale.batch":
        raise UserError(
            f"{key} has several values, but a size needs a name. Write conf/scale/NAME.yaml for each, and "
            "sweep scale=NAME,NAME."
        )
    second = [*others[1:], *(axis for axis in swept if axis in ("variant", "question", "member"))]
    if second:
        tune = " tune=lr tunes the learning rate of each variant." if TUNED in others else ""
        raise UserError(
            f"{key} and {second[0]} both have several values, but a comparison has one list of variants. "
            f"Give one of them one value, or write each combination as conf/variant/NAME.yaml.{tune}"
        )


def _variant_name(override: Override) -> str:
    """Return `learning_rate_0.01` for `optimizer.learning_rate=0.01`; other signs become `_`."""
    value: Any = override.value()
    text = value.text if isinstance(value, QuotedString) else str(value)
    text = text.lower() if isinstance(value, bool) else "null" if value is None else text
    last = override.key_or_group.rpartition(".")[2]
    return f"{last}_{re.sub(r'[^A-Za-z0-9.+-]+', '_', text).strip('_')}"
