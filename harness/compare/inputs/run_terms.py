"""Terms of a run, given before its first step, and their differences that two runs must declare.

The launcher asks before the first step and the verdict at the end, so a pair that could not be judged is not
trained. `variant.touches` declares a question; only what it names is excused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.config.schema.decision import Axis
from harness.core.hashing import is_covered_by
from harness.records.run.provenance import Facts

TOKENS_TOLERANCE = 0.005
"""Relative difference of tokens up to which the ends of two logged runs count as equal."""
MATCH_TOLERANCE = {Axis.tokens: 0.0, Axis.flops: 0.01, Axis.seconds: 0.02}
"""Relative difference up to which the amounts of what the rule matches count as equal."""
SAME_EXAMPLES = ("data.mask_documents",)
"""Nodes of the data that leave the examples and their order as they are."""


@dataclass(frozen=True)
class RunTerms:
    """Data, amounts and schedule of one run."""

    facts: Facts
    touches: tuple[str, ...]
    data_seed: int
    tokens: int
    """Tokens of the whole run."""
    schedule: tuple[Any, ...]
    """Name, warm-up, cooldown, floor, and what the schedule gives its options and other numbers."""
    branches: tuple[Any, ...]
    """Shares of the tokens at which cooldown branches end."""
    from_log: bool = False
    """True for a log of another tool, which tells neither schedule nor data."""

    @property
    def flops(self) -> float:
        """Model FLOPs of the whole run."""
        return self.facts.flops_per_token * self.tokens

    @property
    def stages(self) -> list[tuple[int, Mapping[str, int]]]:
        """First token of each mix, and its examples per source."""
        return [(first * self.facts.tokens_per_step, counts) for first, counts in self.facts.mixes]


def make_terms(
    facts: Facts,
    config: Mapping[str, Any],
    touches: Sequence[str],
    data_seed: int,
    tokens: int,
    from_log: bool,
) -> RunTerms:
    """Return the terms of a run. config: its resolved config, plain; empty for a log."""
    schedule = config.get("schedule") or {}
    shape = tuple(schedule.get(key) for key in ("name", "warmup", "cooldown", "floor"))
    shape += tuple(schedule.get(key) or {} for key in ("options", "values"))
    branches = schedule.get("branches")
    branches = tuple(branches) if isinstance(branches, list) else ()
    return RunTerms(facts, tuple(touches), data_seed, tokens, shape, branches, from_log)


def declares(node: str, a: RunTerms, b: RunTerms) -> bool:
    """Return True if a variant of the two declares the node, or a part of it."""
    return is_covered_by(node, [*a.touches, *b.touches])


def given_flags(a: RunTerms, b: RunTerms, match: Axis = Axis.tokens, looks: bool = False) -> set[str]:
    """Return the blocking flags of two runs from what they are given alone. looks: the rule may stop a scale
    at an interim look. Device-seconds are not known before the runs were timed."""
    conditions = {
        "UNEQUAL_TOKENS": match is Axis.tokens and tokens_differ(a, b),
        "UNMATCHED": match is Axis.flops and amounts_differ(a.flops, b.flops, match),
        "SCHEDULE_MISMATCH": schedules_differ(a, b, looks),
        "DATA_ORDER_MISMATCH": data_differ(a, b),
        "EVAL_SET_MISMATCH": a.facts.eval_fingerprint != b.facts.eval_fingerprint,
    }
    return {flag for flag, present in conditions.items() if present}


def tokens_differ(a: RunTerms, b: RunTerms, at: tuple[int, int] | None = None) -> bool:
    """Return True if two runs have other tokens, in all or `at` a common point: of logs by over
    TOKENS_TOLERANCE, of a declared batch by over one step of the larger batch, else at all."""
    tokens, other_tokens = at or (a.tokens, b.tokens)
    tolerance = TOKENS_TOLERANCE * abs(tokens) if a.from_log else 0.0
    if declares("scale.batch", a, b):
        tolerance = max(a.facts.tokens_per_step, b.facts.tokens_per_step)
    return abs(other_tokens - tokens) > tolerance


def amounts_differ(a: float, b: float, match: Axis) -> bool:
    """Return True if two amounts of FLOPs or seconds differ by over their tolerance or are unknown."""
    return not (a > 0 and b > 0) or abs(b - a) > MATCH_TOLERANCE[match] * a


def schedules_differ(a: RunTerms, b: RunTerms, looks: bool = False) -> bool:
    """Return True if two schedules differ in a shape or a horizon that no variant declares, or in where they
    branch and decay although a look compares them there. A log tells neither."""
    if a.from_log or b.from_log:
        return False
    if looks and (a.branches != b.branches or a.schedule[2] != b.schedule[2]):
        return True
    may_have_other_steps = declares("scale", a, b) or declares("data.sequence_length", a, b)
    other_horizon = a.facts.steps != b.facts.steps and not may_have_other_steps
    return other_horizon or (a.schedule != b.schedule and not declares("schedule", a, b))


def data_differ(a: RunTerms, b: RunTerms) -> bool:
    """Return True if two runs will read different examples, or mixes at other places of the stream, and
    neither declares its data."""
    if a.data_seed != b.data_seed:
        return True
    if declares_examples(a, b):
        return False
    return a.facts.data_fingerprint != b.facts.data_fingerprint or a.stages != b.stages


def declares_examples(a: RunTerms, b: RunTerms) -> bool:
    """Return True if a variant declares a node of the data that decides which examples it reads."""
    nodes = [node for node in (*a.touches, *b.touches) if node not in SAME_EXAMPLES]
    return any(node == "data" or node.startswith("data.") for node in nodes)
