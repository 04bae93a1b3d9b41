"""Simulated devices for every test, set before anything imports jax, and the same examples every time."""

import os

import pytest
from hypothesis import settings

from harness.core.jax_setup.cpu_flags import cpu_env
from tests.budget import lines, seconds_by_room

os.environ.update(cpu_env(devices=8))

# A suite that fails once in a hundred runs is not believed when it does.
settings.register_profile("fixed", derandomize=True)
settings.load_profile("fixed")


def pytest_terminal_summary(terminalreporter):
    """Print what the tests of each room took against their budget."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    durations = [
        (report.nodeid, report.duration) for report in reports if isinstance(report, pytest.TestReport)
    ]
    total = seconds_by_room(durations)
    if len(total) > 1:
        terminalreporter.section("seconds by room")
        terminalreporter.write("".join(f"{line}\n" for line in lines(total)))
