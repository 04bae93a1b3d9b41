"""Extension of Sphinx: directives that put pages made of the code where a page asks for them."""

# pyright: reportMissingImports=false, reportMissingModuleSource=false
# Sphinx is not in .venv.

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from docs.site.command_pages import command_reference
from docs.site.config_pages import config_reference
from docs.site.public_names import plain_docstring, public_names
from docs.site.verdicts import judged_verdict

PARTS: Mapping[str, Callable[..., str]] = {
    "config-reference": config_reference,
    "command-reference": command_reference,
    "public-names": public_names,
}


class GeneratedPart(SphinxDirective):
    """Directive that stands for Markdown, which a function returns for the directive's arguments."""

    optional_arguments = 1
    markdown: Callable[..., str]

    def run(self) -> list[nodes.Node]:
        """Return the nodes of the Markdown, with its sections."""
        return self.parse_text_to_nodes(type(self).markdown(*self.arguments), allow_section_headings=True)


class Verdict(SphinxDirective):
    """Directive that judges what its argument names and puts the page beside those of the site."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the nodes of the verdict."""
        pages = Path(self.env.app.outdir) / self.env.docname
        return self.parse_text_to_nodes(judged_verdict(pages, self.arguments[0]))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives, and the change of docstrings."""
    for name, markdown in PARTS.items():
        app.add_directive(name, type(name, (GeneratedPart,), {"markdown": staticmethod(markdown)}))
    app.add_directive("verdict", Verdict)
    app.add_lexer("csv", TextLexer)
    app.connect("autodoc-process-docstring", plain_docstring)
    return {"parallel_read_safe": True}
