"""Equality to the last digits, and a multiplier that is made up: what the tests of the parts share."""

from __future__ import annotations

import dataclasses

import pytest

from harness.compare.stats import compute_multiplier
from harness.compare.stats.estimates import SlopeAxis


def exactly(value):
    return pytest.approx(value, rel=1e-10, abs=1e-14)


def made(log_k, se, df=4.0, g=0.3):
    return dataclasses.replace(
        compute_multiplier.multiplier_with_interval(SlopeAxis.k_tokens, log_k, se, df, 3, ()), slope=g
    )
