"""Reference of the config as Markdown."""

from __future__ import annotations

from docs.site.config_keys import ConfigNode, config_nodes
from docs.site.markdown import code, table

HEADER = ("key", "type", "default", "meaning")


def config_reference() -> str:
    """Return a section of Markdown for each node of the config, with a table of its keys."""
    return "\n\n".join(map(_section, config_nodes()))


def _section(node: ConfigNode) -> str:
    choices = f"Choices in `conf/{node.name}`: {', '.join(map(code, node.choices))}." if node.choices else ""
    rows = [(code(key.name), key.type, code(key.default), key.meaning) for key in node.keys]
    return "\n\n".join(
        filter(None, (f"## {node.name or 'the run'}", node.meaning, choices, table(HEADER, rows)))
    )
