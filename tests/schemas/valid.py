"""An output held against the schema that it names, with no key that the schema does not have."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from harness.cli.json_output.json_text import schema_text


def check_output(text: str, name: str) -> Any:
    """Return the output that a verb printed. Raises ValidationError unless it is as published."""
    output = json.loads(text)
    _validator(name).validate(output)
    return output


@cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(_closed(json.loads(schema_text(name))))


def _closed(schema: Any) -> Any:
    """Return the schema without room for further keys, which a published one leaves to later versions."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    return closed | {"additionalProperties": False} if isinstance(schema.get("properties"), dict) else closed
