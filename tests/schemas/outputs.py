"""Type of each output: the dataclasses of the results, and what the verbs add to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from harness.cli.json_output.watched_sweep import WatchedSweep
from harness.cli.verbs.list.listing import Listing
from harness.compare.checkpoints.diff_types import CheckpointDiff
from harness.compare.checkpoints.replay_check import ReplayResult
from harness.compare.context.lineage import SweepProvenance
from harness.compare.results.comparison import Comparison
from harness.compare.stats.power import Power
from harness.inspection.verify_data import DataCheck
from harness.launcher.cost.prediction_log import Accuracy, Prediction
from harness.launcher.stages import summary
from harness.launcher.stages.summary import DesignPower
from harness.plan.compilers.queries import CompilerAnswer
from harness.plan.extrapolation.extrapolate import Extrapolation
from harness.plan.plan_types import SweepPlan
from harness.plan.validation import Calibration, HeldOutPrediction
from harness.report.frames.saved_plan import PlanSection
from harness.worker.tokenize_sources import OpenedSource

summary.Power = Power  # imported there for type checkers alone, and pydantic reads it at run time


@dataclass(frozen=True, kw_only=True)
class ComparisonOutput(Comparison):
    """Complete result of a sweep or of logged curves. Losses are in `loss_unit`; a difference is treatment
    minus control; k > 1 favours the treatment. A number that is not known is null."""

    provenance: SweepProvenance
    """Environments, dependencies and ledger; not there for curves."""


@dataclass(frozen=True)
class RunNames:
    """Names of a planned run on a page."""

    name: str
    group: str
    variant: str


@dataclass(frozen=True)
class PlanPage:
    """Sections of a plan as they are printed."""

    command: str
    runs: dict[str, RunNames]
    parts: tuple[PlanSection, ...]


@dataclass(frozen=True, kw_only=True)
class PlanOutput(SweepPlan):
    """Plan of a sweep: runs, machine, power of the design. A number that is not known is null."""

    power: DesignPower
    bets: Extrapolation | None
    """With `evidence=SWEEP`."""
    layers: tuple[CompilerAnswer, ...]
    """Answers of the compilers; only there with `--compile`."""
    page: PlanPage


@dataclass(frozen=True)
class DataChecksOutput:
    """Comparison of data with what was recorded."""

    same: bool
    sources: list[DataCheck]


@dataclass(frozen=True)
class AccuracyOutput:
    """Accuracy of earlier predictions on this machine."""

    machines: list[Accuracy]
    runs: list[Prediction]
    skipped: int


@dataclass(frozen=True)
class PublishedOutput:
    """Accuracy for published runs, each predicted without its source."""

    runs: list[HeldOutPrediction]
    fitted: Calibration


@dataclass(frozen=True)
class TokenizeOutput:
    """Sources whose tokens are in the cache."""

    sources: list[OpenedSource]


@dataclass(frozen=True)
class QuestionOutput:
    """Question that can be asked."""

    name: str
    row: str
    title: str
    computes: str
    socket: str
    source: str
    python: str | None


@dataclass(frozen=True)
class MissingQuestion:
    """Row of the catalogue without a question."""

    row: str
    title: str
    socket: str
    reason: str


@dataclass(frozen=True)
class QuestionsOutput:
    """Questions of experiments/questions."""

    questions: list[QuestionOutput]
    not_askable: list[MissingQuestion]


@dataclass(frozen=True)
class Output:
    """Type of an output, and the keys that may be missing."""

    type: Any
    optional: tuple[str, ...] = ()
    added: dict[str, Any] = field(default_factory=dict)
    """Schemas of keys that are properties of the type."""
    several: bool = False
    """True if the verb prints a list for several inputs."""


OUTPUTS = {
    "compare": Output(ComparisonOutput, ("provenance",), several=True),
    "diff": Output(CheckpointDiff),
    "list": Output(Listing),
    "plan": Output(PlanOutput, ("layers",)),
    "plan_accuracy": Output(AccuracyOutput),
    "plan_published": Output(PublishedOutput),
    "questions": Output(QuestionsOutput),
    "tokenize": Output(TokenizeOutput),
    "verify": Output(ReplayResult, added={"same": {"type": "boolean"}}),
    "verify_data": Output(DataChecksOutput),
    "watch": Output(WatchedSweep),
}
