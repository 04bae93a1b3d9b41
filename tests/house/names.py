"""Bound names that are a bare participle or pronoun.

A binding is every place that gives a name a value: an assignment, a parameter, the target of a loop,
comprehension, `with`, `except`, walrus or `match`, module variables and the fields of a class body. It counts
each time that it is written. Attributes (`self.kept = ...`), functions, classes and imports do not count.
A name is vague if, without underscores at its ends, it is a word of `PRONOUNS` or `PARTICIPLES`, or ends in
`ed` and is not a word of `FIELD_WORDS`. A name of two words or with an axis suffix (`kept_rows`) never is.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.house.measure import Measure, share
from tests.house.source import SourceFile, finding, words

PRONOUNS = words(
    "each one ones other others another mine ours yours theirs own whole rest both all any some "
    "several every many few much more most less least none nothing something everything anything "
    "everyone nobody whatever it its them they this that these those such same what who whom whose "
    "which here there elsewhere somewhere everywhere then again alone together alike apart away still "
    "once twice"
)
"""Pronouns, determiners and adverbs. `now` is missing: it is the usual name of the current time."""

PARTICIPLES = words(
    "found kept known unknown said unsaid told untold seen unseen held shown drawn chosen begun began "
    "given taken took made lost gone done undone written spent driven met torn built sent meant spoken "
    "won worn thought brought bought caught sought taught felt dealt slept swept heard laid paid stood "
    "understood struck stuck sunk sung swum grown thrown flown blown sewn sworn born borne broken "
    "woken stolen fallen eaten beaten bitten forgotten risen ridden shaken forsaken proven gotten lent "
    "bent dug hung led fed fled"
)
"""Participles and past tenses that do not end in `ed`."""

FIELD_WORDS = words(
    "seed need feed speed shed bed embed proceed exceed succeed weed breed adjusted allowed batched "
    "bounded cached calibrated centred chunked clipped compiled contracted converged corrected decayed "
    "dispatched diverged elapsed embedded encoded escaped expected failed finished fixed fused gated "
    "grouped hashed labelled limited lowered masked measured mixed nested normalized observed ordered "
    "padded paired parsed pooled predicted preempted protected published queued quantized recomputed "
    "replicated required routed scanned scored sharded skipped sorted stacked stopped tied trained "
    "tuned typed unlabelled unrolled used weighted "
    "accepted added changed computed covered declared described dropped gathered joined opened passed paused "
    "planned promoted recorded reduced rejected released saved shifted started stored timed "
)
"""Words in `ed` that a JAX or statistics text uses as such: a pooled estimate, a fused kernel.

Those of the last two lines name the set of things with that outcome (`dropped`, `passed`)."""


@dataclass(frozen=True)
class Binding:
    """One place that binds a name."""

    file: SourceFile
    line: int
    function: str
    name: str


def is_vague(name: str) -> bool:
    """Say whether a name is a bare participle or pronoun."""
    if name.startswith("__"):
        return False
    word = name.strip("_")
    if word in PRONOUNS or word in PARTICIPLES:
        return True
    return re.fullmatch(r"[a-z]+ed", word) is not None and word not in FIELD_WORDS


def bindings(file: SourceFile) -> Iterator[Binding]:
    """Yield every binding of a file."""
    for node, scope in file.scopes:
        match node:
            case ast.Name(id=name, ctx=ast.Store()):
                pass
            case ast.arg(arg=name):
                pass
            case (
                ast.ExceptHandler(name=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
            ):
                pass
            case _:
                continue
        yield Binding(file, getattr(node, "lineno", 1), scope, name)


def measure_names(files: list[SourceFile]) -> Measure:
    """Take the share of bindings whose name is vague. `other` in a method like `__eq__` is exempt."""
    found = [binding for file in files for binding in bindings(file)]
    findings = [
        finding(binding.file, binding.line, binding.function, binding.name)
        for binding in found
        if is_vague(binding.name) and not _is_operand(binding)
    ]
    mend = "Name what it holds: a noun for what it is, with the participle in front if it must stay."
    value = share(len(findings), len(found))
    return Measure(
        "names", "bound names that are a bare participle or pronoun", value, findings, mend, "%", len(found)
    )


def _is_operand(binding: Binding) -> bool:
    method = binding.function.rpartition(".")[2]
    return binding.name == "other" and method.startswith("__") and method.endswith("__")
