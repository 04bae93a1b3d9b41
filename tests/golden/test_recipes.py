"""The resolved recipe of each size is what it was."""

from __future__ import annotations

from tests.golden.support import HERE, SIZES, recipes


def test_each_size_has_the_recipe_that_it_had(tmp_path):
    stored = {size: (HERE / f"size_{size}.yaml").read_text() for size in SIZES}
    assert recipes(tmp_path) == stored
