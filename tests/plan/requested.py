"""A run with the facts that a test gives it, for the functions that plan."""

from dataclasses import dataclass

from harness.config.schema.run import Config
from harness.records.run.provenance import Facts


@dataclass
class RequestedRun:
    """A `DescribedRun` whose config and facts a test may change."""

    name: str
    config: Config
    facts: Facts
