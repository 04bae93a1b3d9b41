"""The ledger keeps its order, and misses what was cut, edited or taken out."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.records.paths import SweepDir
from harness.records.sweep import ledger
from tests.records.scratch import few, fresh


class TestLedger:
    @given(st.lists(st.dictionaries(st.text(max_size=5), st.integers()), min_size=1, max_size=5))
    @few
    def test_entries_come_back_in_order_and_chained(self, contents):
        sweep = SweepDir(fresh())
        for content in contents:
            ledger.append(sweep, "note", content)
        assert [entry["content"] for entry in ledger.read(sweep)] == contents
        assert ledger.edited_positions(sweep) == []

    @given(st.integers(1, 4), st.data())
    @few
    def test_a_line_cut_anywhere_costs_only_itself(self, count, data):
        sweep = SweepDir(fresh())
        for number in range(count):
            ledger.append(sweep, "note", {"number": number})
        content = sweep.ledger.read_bytes()
        last = content[:-1].rfind(b"\n") + 1
        sweep.ledger.write_bytes(content[: data.draw(st.integers(last, len(content) - 2))])
        ledger.append(sweep, "note", {"number": "after"})
        assert [e["content"]["number"] for e in ledger.read(sweep)] == [*range(count - 1), "after"]
        assert ledger.edited_positions(sweep) == []

    @given(st.integers(0, 2), st.sampled_from(["content", "time", "kind", "previous", "hash"]))
    @few
    def test_an_entry_that_was_edited_is_found(self, position, field):
        sweep = SweepDir(fresh())
        for number in range(3):
            ledger.append(sweep, "note", {"number": number})
        lines = [json.loads(line) for line in sweep.ledger.read_text().splitlines()]
        lines[position][field] = "x"
        sweep.ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert position in ledger.edited_positions(sweep)

    @given(st.integers(0, 1))
    @few
    def test_an_entry_that_was_taken_out_is_missed(self, position):
        sweep = SweepDir(fresh())
        for number in range(3):
            ledger.append(sweep, "note", {"number": number})
        lines = sweep.ledger.read_text().splitlines(keepends=True)
        sweep.ledger.write_text("".join(lines[:position] + lines[position + 1 :]))
        assert ledger.edited_positions(sweep)

    @pytest.mark.parametrize("line", [b"\xff\xfe\n", b"3\n", b'{"hash": 1}\n', b"\n"])
    def test_a_damaged_line_does_not_stop_the_reader(self, tmp_path, line):
        sweep = SweepDir(tmp_path)
        ledger.append(sweep, "note", {})
        sweep.ledger.write_bytes(sweep.ledger.read_bytes() + line)
        ledger.append(sweep, "note", {})
        assert len(ledger.read(sweep, "note")) == 2
        assert ledger.unreadable_lines(sweep) == bool(line.strip())

    def test_a_ledger_that_holds_nothing_is_not_a_missing_one(self, tmp_path):
        sweep = SweepDir(tmp_path)
        assert ledger.unreadable_lines(sweep) == 0
        sweep.ledger.write_text("")
        assert ledger.unreadable_lines(sweep) == 1
