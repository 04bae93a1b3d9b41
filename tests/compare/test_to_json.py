"""Results as JSON."""

from __future__ import annotations

import json

from harness.compare.results.to_json import to_json
from harness.compare.stats import paired_effects


def test_json_has_no_nan():
    effect = paired_effects.effect_with_interval(float("nan"), 1.0, 3, 2.0, "t")
    assert json.loads(json.dumps(to_json(effect), allow_nan=False))["mean"] is None
