"""What `plan --json` says has the keys that it had."""

from __future__ import annotations

import pytest

from tests.golden.support import PLANS, check_list, harness, key_paths, plan_cache, said_json


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_has_the_keys_that_it_had(name, tmp_path):
    done = harness("plan", *PLANS[name], "--json", cwd=tmp_path, cache=plan_cache())
    check_list(name, {*key_paths(said_json(done))})
