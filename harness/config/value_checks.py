"""Checks of a composed config's values: the range of each number, folder names and the token budget."""

from __future__ import annotations

from harness.config.recipes.durations import check_durations
from harness.config.schema.ranges import FINITE, RANGES, numbers
from harness.config.schema.run import Config, num_steps
from harness.core.errors import UserError
from harness.core.paths import check_folder_name


def check_values(config: Config) -> None:
    """Raise UserError for a number outside its range, a name that is no folder, a duration in two units, or
    less than one step."""
    for key, pattern, value in numbers(config):
        if value not in (interval := RANGES.get(pattern, FINITE)):
            raise UserError(f"{key}={value}: out of range. Give {interval}.")
    check_folder_name("experiment_name", config.experiment_name)
    check_folder_name("scale.name", config.scale.name)
    check_folder_name("variant.name", config.variant.name)
    check_durations(config)
    if num_steps(config) < 1:
        batch, length = config.scale.batch, config.data.sequence_length
        raise UserError(
            f"scale.tokens={config.scale.tokens} is less than one step of {batch * length} tokens "
            f"(scale.batch={batch} x data.sequence_length={length}). Raise scale.tokens or lower scale.batch."
        )
