"""Simulated devices for every test, set before anything imports jax, and the same examples every time."""

import gc
import os
import signal

import pytest
from hypothesis import settings

from harness.core.jax_setup.cpu_flags import cpu_env
from tests.budget import lines, seconds_by_room
from tests.quick_compiles import compile_quickly

os.environ.update(cpu_env(devices=8))
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell, which children inherit
    signal.signal(signal.SIGINT, signal.default_int_handler)
gc.disable()  # until all tests are imported, which takes half the time so: nothing of them is garbage

# A suite that fails once in a hundred runs is not believed when it does.
settings.register_profile("fixed", derandomize=True)
settings.load_profile("fixed")


def pytest_addoption(parser):
    parser.addoption("--optimized", action="store_true", help="compile as training does")


def pytest_configure(config):
    """Choose how programs compile, before any test makes JAX read it: quickly, since rooms with models spend
    most of their time so. What a test starts as a process of its own compiles as training does, and so does
    `--optimized`."""
    if not config.getoption("--optimized"):
        compile_quickly(os.environ)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop():
    """Look for garbage only among what tests make, and seldom: a tenth of their time went there."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


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
