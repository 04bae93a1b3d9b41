"""Lines that say of a learning rate that no rule carries to the size of its model."""

from __future__ import annotations

from collections.abc import Sequence

from harness.config.recipes.sizes import step_law_rate
from harness.config.schema.finetune import FinetuneMethod
from harness.config.schema.run import Config
from harness.core.number_format import format_count
from harness.launcher.runs import Run

FAR = 3.0
"""Learning rate over that of the Step Law from which on it is said."""


def rate_lines(runs: Sequence[Run]) -> list[str]:
    """Return a line for each scale whose rate is far above the Step Law's for its parameters and tokens, and
    that no base width carries to its width."""
    lines: dict[str, str] = {}
    for run in (run for run in runs if run.facts.is_known):  # the law is for transformers
        law = step_law_rate(run.facts.non_embedding, run.tokens)
        ratio = run.config.optimizer.learning_rate / law
        if ratio >= FAR and not _is_carried(run.config):
            lines.setdefault(run.config.scale.name, _line(run, law, ratio))
    return [*lines.values()]


def _is_carried(config: Config) -> bool:
    return config.model.base_width is not None or config.finetune.method is not FinetuneMethod.none


def _line(run: Run, law: float, ratio: float) -> str:
    rate, width = f"optimizer.learning_rate={run.config.optimizer.learning_rate:g}", run.facts.shape["width"]
    parameters, tokens = format_count(run.facts.non_embedding), format_count(run.tokens)
    return (
        f"  {run.config.scale.name}: {rate} at width {width} is {ratio:.0f} times the {law:g} of the Step "
        f"Law for {parameters} parameters and {tokens} tokens. Lower it, or set model.base_width to the "
        "width that it was tuned at."
    )
