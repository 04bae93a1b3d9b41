"""Schemas from the types of the outputs, and what a change of them asks of the version."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ConfigDict, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from harness.cli.json_output.json_text import SCHEMA_FOLDER, VERSIONS
from tests.schemas.outputs import OUTPUTS

DIALECT = "https://json-schema.org/draft/2020-12/schema"
CONFIG = ConfigDict(use_attribute_docstrings=True, json_schema_serialization_defaults_required=True)
WORDS = ("description", "title", "$id")
"""Keys of a schema that say nothing about the form of an output."""


class SchemaOfResults(GenerateJsonSchema):
    """Schema of what `to_json` makes of a result: a number that is not finite becomes null."""

    def float_schema(self, schema: Any) -> Any:
        """Return a number or null."""
        return {"type": ["number", "null"]}

    def nullable_schema(self, schema: Any) -> Any:
        """Return the schema of the value if that includes null already."""
        value = self.generate_inner(schema["schema"])
        return value if "null" in value.get("type", ()) else super().nullable_schema(schema)

    def default_schema(self, schema: Any) -> Any:
        """Return the schema of the value: an output leaves nothing out for a reader to fill in."""
        return self.generate_inner(schema["schema"])

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return False: a title would only repeat the key."""
        return False


def make_schema(name: str) -> dict[str, Any]:
    """Return the schema of an output of this version."""
    output, version = OUTPUTS[name], VERSIONS[name]
    output.type.__pydantic_config__ = CONFIG
    made = TypeAdapter(output.type).json_schema(mode="serialization", schema_generator=SchemaOfResults)
    definitions = made.pop("$defs", {})
    stamp = {"type": "string", "pattern": rf"^{name}/{version.partition('.')[0]}\.[0-9]+$"}
    made["properties"] = {"schema": stamp, **made["properties"], **output.added}
    required = [*made["required"], *output.added]
    made["required"] = ["schema", *(key for key in required if key not in output.optional)]
    root: dict[str, Any] = made
    if output.several:
        definitions[made["title"]] = made
        reference = {"$ref": f"#/$defs/{made['title']}"}
        root = {"anyOf": [reference, {"type": "array", "items": reference}]}
    identity = {"$schema": DIALECT, "$id": f"urn:ab-harness:{name}:{version}"}
    return identity | root | {"$defs": dict(sorted(definitions.items()))}


def as_text(schema: dict[str, Any]) -> str:
    """Return the content of a published file."""
    return json.dumps(schema, indent=1) + "\n"


def published(name: str) -> dict[str, Any] | None:
    """Return the schema that is published; None if there is none yet."""
    path = SCHEMA_FOLDER / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def version_problem(old: dict[str, Any] | None, new: dict[str, Any]) -> str:
    """Return why the new schema may not replace the old one under its version; empty if it may."""
    if old is None or form(old) == form(new):
        return ""
    before, after = (tuple(map(int, schema["$id"].rpartition(":")[2].split("."))) for schema in (old, new))
    if after[0] > before[0]:
        return ""
    if not extends(old, new):
        return f"an output has lost or changed keys: raise the first number of version {before} in VERSIONS"
    return "" if after > before else f"an output has new keys: raise the second number of version {before}"


def form(schema: Any) -> Any:
    """Return the schema without its words and its version."""
    if isinstance(schema, dict):
        items = schema.items()
        return {key: form(value) for key, value in items if isinstance(value, dict) or key not in WORDS}
    return [form(value) for value in schema] if isinstance(schema, list) else schema


def extends(old: Any, new: Any) -> bool:
    """Return whether a reader of the old form can read the new one: it has more keys, or requires more."""
    old, new = form(old), form(new)
    if isinstance(old, dict) and isinstance(new, dict) and "properties" in old:
        kept = {"properties", "required"}
        return (
            all(
                key in new["properties"] and extends(value, new["properties"][key])
                for key, value in old["properties"].items()
            )
            and {*old.get("required", ())} <= {*new.get("required", ())}
            and all(extends(old[key], new.get(key)) for key in old.keys() - kept)
        )
    if isinstance(old, dict) and isinstance(new, dict):
        return all(key in new and extends(value, new[key]) for key, value in old.items())
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(extends, old, new))
    return old == new
