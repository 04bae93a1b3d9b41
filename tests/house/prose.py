"""Docstrings: those that open with a preposition or relative pronoun, and those that are missing."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from tests.house.measure import Measure, share
from tests.house.source import Definition, SourceFile, finding, words

OPENINGS = words(
    "of by that those beside in as with without whose where what whether who how why to from for at on "
    "over which past behind among between under before after until till when because if since"
)
"""Words that no docstring opens with. `one` counts where another of these follows it (see `PRONOUN`)."""

PRONOUN = "one"
"""`One of ...`, `One that ...` opens with a pronoun; `One batch ...` opens with a noun and is fine."""


@dataclass(frozen=True)
class Docstring:
    """One docstring: of a module, class, function, or of the variable assigned just above it."""

    file: SourceFile
    line: int
    owner: str
    text: str

    @property
    def opening(self) -> str:
        """First word, in lower case and without marks."""
        return _word(self.text, 0)

    @property
    def opens_badly(self) -> bool:
        return self.opening in OPENINGS or (self.opening == PRONOUN and _word(self.text, 1) in OPENINGS)


def _word(text: str, index: int) -> str:
    parts = text.split()
    return parts[index].strip("`*\"':,.;!?").lower() if index < len(parts) else ""


def docstrings(file: SourceFile) -> Iterator[Docstring]:
    """Yield every docstring of a file."""
    for node, scope in file.scopes:
        if isinstance(node, ast.Module | Definition):
            name = f"{scope}.{node.name}".lstrip(".") if isinstance(node, Definition) else ""
            first = node.body[0] if node.body else None
            if first is not None and (text := _bare_string(first)) is not None:
                yield Docstring(file, first.lineno, name, text)
            yield from _of_variables(file, node.body, name)


def _of_variables(file: SourceFile, body: list[ast.stmt], scope: str) -> Iterator[Docstring]:
    for statement, after in pairwise(body):
        text = _bare_string(after)
        if text is not None and isinstance(statement, ast.Assign | ast.AnnAssign):
            target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
            yield Docstring(file, after.lineno, f"{scope}.{ast.unparse(target)}".lstrip("."), text)


def _bare_string(statement: ast.stmt) -> str | None:
    value = statement.value if isinstance(statement, ast.Expr) else None
    text = value.value if isinstance(value, ast.Constant) else None
    return text if isinstance(text, str) else None


def measure_openings(files: list[SourceFile]) -> Measure:
    """Take the share of docstrings that open with one of `OPENINGS`."""
    found = [docstring for file in files for docstring in docstrings(file)]
    findings = [
        finding(doc.file, doc.line, doc.owner, doc.opening.capitalize()) for doc in found if doc.opens_badly
    ]
    mend = (
        "Begin a function's docstring with a verb, a class's with a noun, a field's with a noun and its unit."
    )
    value = share(len(findings), len(found))
    return Measure(
        "openings", "docstrings opening with a preposition or pronoun", value, findings, mend, "%", len(found)
    )


def public_definitions(file: SourceFile) -> Iterator[tuple[Definition, str]]:
    """Yield the public functions and classes of a module, with the public methods of public classes."""
    if not file.path.stem.startswith("_") or file.path.stem.startswith("__"):
        yield from _public(file.tree.body, "")


def _public(body: list[ast.stmt], scope: str) -> Iterator[tuple[Definition, str]]:
    for node in body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            name = f"{scope}.{node.name}".lstrip(".")
            yield node, name
            if isinstance(node, ast.ClassDef):
                yield from _public(node.body, name)


def measure_missing(files: list[SourceFile]) -> Measure:
    """Take the share of public names without a docstring."""
    names = [(file, node, name) for file in files for node, name in public_definitions(file)]
    findings = [
        finding(file, node.lineno, name.rpartition(".")[0], node.name)
        for file, node, name in names
        if ast.get_docstring(node) is None
    ]
    mend = "Say in one sentence what it does, with shapes, units and errors where there are any."
    value = share(len(findings), len(names))
    return Measure("missing", "public names without a docstring", value, findings, mend, "%", len(names))
