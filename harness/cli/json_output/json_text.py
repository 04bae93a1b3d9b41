"""JSON text of each `--json`, with the name and version of its schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.core.errors import UserError, did_you_mean

VERSIONS = {
    "compare": "1.0",
    "diff": "1.0",
    "list": "1.0",
    "plan": "1.0",
    "plan_accuracy": "1.0",
    "plan_published": "1.0",
    "questions": "1.0",
    "tokenize": "1.0",
    "verify": "1.0",
    "verify_data": "1.0",
    "watch": "1.0",
}
"""Version of each output. The second number rises when keys are added, the first when one goes or changes."""
SCHEMA_FOLDER = Path(__file__).parent / "schemas"


def json_text(output: str, content: Any) -> str:
    """Return results as JSON that names its schema; a list of results as a list."""
    from harness.compare.results.to_json import to_json

    plain = to_json(content)
    several = isinstance(plain, list)
    stamped = [_stamped(output, item) for item in plain] if several else _stamped(output, plain)
    return json.dumps(stamped, indent=2, sort_keys=True, allow_nan=False)


def _stamped(output: str, content: Mapping[str, Any]) -> dict[str, Any]:
    return {"schema": f"{output}/{VERSIONS[output]}", **content}


def schema_text(output: str) -> str:
    """Return the JSON schema (draft 2020-12) of an output. Raises UserError if there is none."""
    if output not in VERSIONS:
        raise UserError(f"--schema {output}: no such output; {did_you_mean(output, VERSIONS)}")
    return (SCHEMA_FOLDER / f"{output}.json").read_text()
