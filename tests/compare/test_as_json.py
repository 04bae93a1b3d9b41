"""Results as JSON."""

from __future__ import annotations

import json

from harness.compare import effects
from harness.compare.as_json import to_json


def test_json_has_no_nan():
    effect = effects.with_interval(float("nan"), 1.0, 3, 2.0, "t")
    assert json.loads(json.dumps(to_json(effect), allow_nan=False))["mean"] is None
