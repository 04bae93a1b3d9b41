"""Tables of provenance: code, versions, data, config differences, amendments."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import yaml

from harness.compare.results.comparison import Comparison
from harness.core.hashing import flatten
from harness.core.number_format import MISSING
from harness.core.paths import within_folder
from harness.records.paths import SweepDir
from harness.records.run.provenance import Provenance
from harness.records.sweep import ledger
from harness.report.frames.sweep_frames import Frames
from harness.report.tables import wording
from harness.report.tables.text_table import Table, make_table

DIGITS, LEDGER_LETTERS = 16, 200
"""Numbers of digits of a hash, and of letters of an entry of the ledger, that are shown."""


def fact_table(comparison: Comparison, content: Frames) -> Table:
    """Return one row per fact. Several values mean that the runs disagree. Hashes are shortened.

    For logged curves only the files and end states are known.
    """
    records = [run.record for run in content.runs]
    packages = sorted({name for record in records for name in record.versions})
    rows = {
        "curves" if content.sweep is None else "sweep": [content.name],
        "rule": [comparison.rule.hash[:DIGITS] or "not recorded before the first step"],
        "code": _distinct_values(record.code_hash[:DIGITS] for record in records),
        "data": _distinct_values(record.facts.data_fingerprint[:DIGITS] for record in records),
        "held-out tokens": _distinct_values(record.facts.eval_fingerprint[:DIGITS] for record in records),
        **_sets(records),
        **{name: _distinct_values(r.versions.get(name, MISSING) for r in records) for name in packages},
        "end states": [wording.state_counts(comparison.runs)] if comparison.runs else [],
    }
    cells = ((name, ", ".join(values)) for name, values in rows.items() if values)
    return make_table(("fact", "value"), cells, left=2)


def _sets(records: Sequence[Provenance]) -> dict[str, list[str]]:
    """Return the tokens of each validation set, and how much of it stands in the training text."""
    names = sorted({name for record in records for name in record.facts.sets})
    facts_by_name = {name: [r.facts.sets[name] for r in records if name in r.facts.sets] for name in names}
    return {
        f"set {name}": _distinct_values(f"{facts.tokens:,} tokens; {facts.contamination}" for facts in sets)
        for name, sets in facts_by_name.items()
    }


def config_differences(content: Frames) -> Table:
    """Return the config keys whose values differ between variants of a scale, one column per variant."""
    scales_by_row: dict[tuple[str, ...], list[str]] = {}
    for scale in content.scales:
        configs = {name: _config_of_first_seed(content, scale, name) for name in content.variants}
        for row in _differing(configs):
            scales_by_row.setdefault(row, []).append(scale)
    rows = ((row[0], ", ".join(scales), *row[1:]) for row, scales in scales_by_row.items())
    return make_table(("key", "at", *content.variants), rows, left=2 + len(content.variants))


def amendment_table(sweep: SweepDir | None) -> Table:
    """Return the ledger, oldest first, with a warning at entries that were edited after they were written."""
    if sweep is None:
        return make_table((), ())
    edited_positions = set(ledger.edited_positions(sweep))
    rows = (
        (entry["time"], entry["kind"], _shortened(json.dumps(entry["content"], sort_keys=True)),
         "edited afterwards" if position in edited_positions else "")
        for position, entry in enumerate(ledger.read(sweep))
    )  # fmt: skip
    return make_table(("time", "entry", "content", "warning"), rows, left=4)


def _shortened(text: str) -> str:
    """Return the beginning of a long text, with the number of letters that are left out."""
    left_out = len(text) - LEDGER_LETTERS
    return f"{text[:LEDGER_LETTERS]} ... ({left_out:,} more letters in sweep.json)" if left_out > 0 else text


def _differing(configs: dict[str, dict]) -> Iterable[tuple[str, ...]]:
    present = [config for config in configs.values() if config]
    keys = sorted({key for config in present for key in config if not key.startswith("variant.")})
    for key in keys:
        if len({json.dumps(config.get(key)) for config in present}) > 1:
            yield key, *(_json_value(config, key) for config in configs.values())


def _json_value(config: dict, key: str) -> str:
    return json.dumps(config[key], ensure_ascii=False) if key in config else MISSING


def _config_of_first_seed(content: Frames, scale: str, variant: str) -> dict:
    """Return the first seed's resolved config by dotted key, or {} if it cannot be read."""
    first = (run for run in content.runs if (run.record.scale, run.record.variant) == (scale, variant))
    if (run := next(first, None)) is None:
        return {}
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        config = yaml.load(within_folder(run.path.config).read_text(), loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return flatten(config) if isinstance(config, dict) else {}


def _distinct_values(values: Iterable[str]) -> list[str]:
    return [value or MISSING for value in dict.fromkeys(values)]
