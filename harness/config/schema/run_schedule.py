"""Typed config nodes of a run's course: learning rate, evaluations and checkpoints over its steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class ScheduleConfig:
    """Learning-rate schedule."""

    name: str = MISSING
    """Registered schedule, such as wsd, cosine or constant."""
    warmup: float | None = 0.05
    """Share of the run's steps with a rising rate; null: `warmup_tokens`."""
    warmup_tokens: int | None = None
    """Number of tokens with a rising rate; null: `warmup`."""
    cooldown: float = 0.15
    """Share of the run's steps with a falling rate at the end (wsd)."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of a schedule of your own."""
    values: dict[str, Any] = field(default_factory=dict)
    """Schedule `{name, options}` of other numbers by their key, such as `optimizer.weight_decay`: factors
    over the run."""
    floor: float = 0.0
    """Final learning rate as a share of the peak."""
    branches: list[float] = field(default_factory=list)
    """Shares of the token budget at which cooldown branches end; each equals a run with that budget."""


@dataclass
class EvaluationSetConfig:
    """Validation set of its own: evaluated whole or in part, never trained on."""

    path: str = MISSING
    """File, folder or URL, as of a source."""
    column: str = "text"
    """Column of texts, or of tokens, as of a source."""
    format: str | None = None
    """Registered format of files that hold tokens; null: known by the files."""
    options: dict[str, Any] = field(default_factory=dict)
    """What the format does not say."""


@dataclass
class EvaluationConfig:
    """Evaluations on held-out data."""

    points: int | None = 8
    """Number of evaluations of a run, evenly spaced; the last is at the end. Null: `every_tokens`."""
    every_tokens: int | None = None
    """Number of training tokens from one evaluation to the next; another is at the end. Null: `points`."""
    tokens: int = 16_384
    """Number of held-out tokens per domain, and of tokens of each set if it has as many."""
    sets: dict[str, EvaluationSetConfig] = field(default_factory=dict)
    """Validation sets by name: domains of the curves that do not decide unless rule.domains names them."""
    decontaminate: int = 13
    """Length in tokens of the n-grams by which windows of sets that stand in training text are left out; 0:
    none is."""


@dataclass
class CheckpointConfig:
    """Checkpoints that a run saves and keeps."""

    every: int | None = 100
    """Number of steps between checkpoints, and of a metrics part; null: `every_tokens` or `every_minutes`."""
    every_tokens: int | None = None
    """Number of tokens between checkpoints."""
    every_minutes: float | None = None
    """Minutes between checkpoints, by the clock of the run's first process."""
    keep_last: int = 2
    """Number of newest checkpoints that are kept."""
    keep_every: int = 0
    """Interval in steps of checkpoints that are also kept; 0: none."""
