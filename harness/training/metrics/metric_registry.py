"""Registry of metrics: scalars that a run records beside its loss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from harness.config.schema.run import Config
from harness.config.socket_registry import Configured, NoOptions, Registry
from harness.core.errors import UserError
from harness.models.sockets.side_inputs import asked_names, check_names
from harness.records.run.metrics import EVALS, STEPS

Function = TypeVar("Function", bound=Callable[..., Any])


class MeasuredAt(Enum):
    """Time at which a metric is computed."""

    step = "step"
    """Each step."""
    evaluation = "evaluation"
    """Each evaluation, with a value for each held-out row."""


TOLD = {
    MeasuredAt.step: ("params", "grads", "updates", "state", "rows_BR", "loss", "model", "options"),
    MeasuredAt.evaluation: ("params", "model", "rows_BR", "options"),
}
"""Names that a metric may ask for."""


@dataclass(frozen=True)
class RegisteredMetric:
    """A function from what it asks for by name to a scalar, or at an evaluation to a value a row."""

    name: str
    options: type
    implementation: Callable[..., Any]
    at: MeasuredAt
    unit: str = ""
    better: str | None = None
    """`lower` or `higher`; None: neither is better."""


ConfiguredMetric = Configured[RegisteredMetric]
METRICS: Registry[RegisteredMetric] = Registry("metric", "metrics")


def register_metric(
    name: str, options: type = NoOptions, *, at: str, unit: str = "", better: str | None = None
) -> Callable[[Function], Function]:
    """Return the decorator that registers a function as the metric `name`.

    The names of its arguments say what it asks for. `at="step"`: `params` before the update and `updates`
    by stored path, `grads` before clipping, `state` of the optimizer, `loss`, and `rows_BR` of the first
    micro-batch (-1 at the empty places of packed ones); it returns a scalar or a dict of scalars.
    `at="evaluation"`: `params` and held-out `rows_BR`; it returns a value a row, [B], or a dict of them,
    which are averaged over the rows of a domain. Both may ask for `model`, which takes `params`, and
    `options`. `better`: "lower" or "higher".
    """

    def register(function: Function) -> Function:
        METRICS.add(RegisteredMetric(name, options, function, MeasuredAt(at), unit, better))
        return function

    return register


def configured_metrics(config: Config, at: MeasuredAt | None = None) -> list[ConfiguredMetric]:
    """Return the metrics of a run, of one time or of all. Raises UserError for one that is not registered,
    is listed twice, has the name of a column, or asks for what it cannot be told."""
    metrics: list[ConfiguredMetric] = [
        METRICS.lookup(node, f"metrics[{index}]") for index, node in enumerate(config.metrics)
    ]
    for name, count in Counter(metric.name for metric in metrics).items():
        if count > 1:
            raise UserError(f"metrics: '{name}' is listed {count} times. List it once.")
    for metric in metrics:
        _check_metric(metric)
    return [metric for metric in metrics if at in (None, metric.entry.at)]


def _check_metric(metric: ConfiguredMetric) -> None:
    entry = metric.entry
    if entry.name in STEPS or entry.name in EVALS:
        raise UserError(f"metrics: '{entry.name}' is a column that every run has. Rename the metric.")
    if entry.better not in (None, "lower", "higher"):
        raise UserError(f"metrics: '{entry.name}' has better={entry.better!r}. Give lower, higher or None.")
    check_names(f"metric '{entry.name}'", asked_names(entry.implementation, 0), (), TOLD[entry.at])
