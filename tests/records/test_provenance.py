"""Under what a run was trained: its record, and the hash of the code."""

from __future__ import annotations

import pytest

from harness.records.paths import RunDir
from harness.records.run.provenance import code_hash, read_provenance


class TestProvenance:
    @pytest.mark.parametrize("content", ["", "[]", "3", "{}", '{"facts": {}}'])
    def test_damage_is_none(self, tmp_path, content):
        (tmp_path / "run.json").write_text(content)
        assert read_provenance(RunDir(tmp_path)) is None

    def test_the_code_hash_follows_a_users_module(self, tmp_path):
        module = tmp_path / "mine.py"
        module.write_text("a = 1")
        before = code_hash(module)
        module.write_text("a = 2")
        code_hash.cache_clear()
        assert code_hash(module) != before
