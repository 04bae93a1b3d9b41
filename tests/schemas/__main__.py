"""Writes the schemas that `harness guide --schema` prints: `python -m tests.schemas`.

A schema whose form has changed is refused until its version in VERSIONS is raised.
"""

from __future__ import annotations

import sys

from harness.cli.json_output.json_text import SCHEMA_FOLDER, VERSIONS
from tests.schemas.generate import as_text, make_schema, published, version_problem

schemas = {name: make_schema(name) for name in VERSIONS}
problems = {name: version_problem(published(name), schema) for name, schema in schemas.items()}
for name, schema in schemas.items():
    if problems[name]:
        print(f"{name}: {problems[name]}", file=sys.stderr)
    else:
        (SCHEMA_FOLDER / f"{name}.json").write_text(as_text(schema))
sys.exit(any(problems.values()))
