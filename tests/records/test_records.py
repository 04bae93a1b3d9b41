"""What is left behind survives kills, torn writes and flipped bits, or says that it did not."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config.errors import UserError
from harness.config.schema import Config, ScaleConfig
from harness.records import atomic, ledger, manifest, metrics
from harness.records.claim import claim, holder, release
from harness.records.configs import read_config, sealed, write_config
from harness.records.layout import RunDir, SweepDir
from harness.records.manifest import Manifest
from harness.records.provenance import code_hash, read_provenance
from harness.records.status import State, Status, Writer, read_status, write_status

few = settings(max_examples=25, deadline=None)


def fresh() -> Path:
    return Path(tempfile.mkdtemp())


def forked(action) -> int:
    """Run in a child; its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        try:
            action()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class TestAtomic:
    @pytest.mark.parametrize("moment", ["fsync", "replace"])
    def test_a_kill_leaves_the_old_file_whole(self, tmp_path, monkeypatch, moment):
        path = tmp_path / "a.json"
        atomic.write_json(path, {"old": 1})
        target = os if moment == "fsync" else Path
        monkeypatch.setattr(target, moment, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        assert forked(lambda: atomic.write_json(path, {"new": 2})) == -signal.SIGKILL
        assert atomic.read_json(path) == {"old": 1}

    def test_what_failed_leaves_no_litter(self, tmp_path, monkeypatch):
        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            atomic.write_text(tmp_path / "a", "x")
        assert [*tmp_path.iterdir()] == []

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"a": 1'])
    def test_unreadable_json_is_none(self, tmp_path, content):
        (tmp_path / "a").write_bytes(content)
        assert atomic.read_json(tmp_path / "a") is None

    def test_a_missing_file_is_none(self, tmp_path):
        assert atomic.read_json(tmp_path / "a") is None
        (tmp_path / "file").touch()
        assert atomic.read_json(tmp_path / "file" / "below") is None


class TestSealed:
    @given(st.dictionaries(st.text(max_size=8), st.integers() | st.floats(allow_nan=False)), st.data())
    @few
    def test_a_flipped_bit_changes_nothing_that_is_read(self, content, data):
        path = fresh() / "a.json"
        content.pop("checksum", None)
        atomic.write_sealed(path, content)
        assert atomic.read_sealed(path) == content
        damaged = bytearray(path.read_bytes())
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(damaged)
        found = atomic.read_sealed(path)
        assert found is None or found.items() >= content.items()

    def test_a_file_of_an_earlier_version_has_no_seal(self, tmp_path):
        atomic.write_json(tmp_path / "a.json", {"state": "finished"})
        assert atomic.read_sealed(tmp_path / "a.json") == {"state": "finished"}


class TestLedger:
    @given(st.lists(st.dictionaries(st.text(max_size=5), st.integers()), min_size=1, max_size=5))
    @few
    def test_entries_come_back_in_order_and_chained(self, contents):
        sweep = SweepDir(fresh())
        for content in contents:
            ledger.append(sweep, "note", content)
        assert [entry["content"] for entry in ledger.read(sweep)] == contents
        assert ledger.edited(sweep) == []

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
        assert ledger.edited(sweep) == []

    @given(st.integers(0, 2), st.sampled_from(["content", "time", "kind", "previous", "hash"]))
    @few
    def test_an_entry_that_was_edited_is_found(self, position, field):
        sweep = SweepDir(fresh())
        for number in range(3):
            ledger.append(sweep, "note", {"number": number})
        lines = [json.loads(line) for line in sweep.ledger.read_text().splitlines()]
        lines[position][field] = "x"
        sweep.ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert position in ledger.edited(sweep)

    @given(st.integers(0, 1))
    @few
    def test_an_entry_that_was_taken_out_is_missed(self, position):
        sweep = SweepDir(fresh())
        for number in range(3):
            ledger.append(sweep, "note", {"number": number})
        lines = sweep.ledger.read_text().splitlines(keepends=True)
        sweep.ledger.write_text("".join(lines[:position] + lines[position + 1 :]))
        assert ledger.edited(sweep)

    @pytest.mark.parametrize("line", [b"\xff\xfe\n", b"3\n", b'{"hash": 1}\n', b"\n"])
    def test_a_damaged_line_does_not_stop_the_reader(self, tmp_path, line):
        sweep = SweepDir(tmp_path)
        ledger.append(sweep, "note", {})
        sweep.ledger.write_bytes(sweep.ledger.read_bytes() + line)
        ledger.append(sweep, "note", {})
        assert len(ledger.read(sweep, "note")) == 2


def rows(start: int, end: int) -> list[dict]:
    return [
        dict.fromkeys(metrics.STEPS, 0) | {"step": step, "loss": step / 7}
        for step in range(start + 1, end + 1)
    ]


def sealed_parts(*ends: int) -> RunDir:
    """A run with parts that end at these steps."""
    run, start = RunDir(fresh()), 0
    for end in ends:
        metrics.seal(run, "steps", start, end, rows(start, end))
        metrics.seal(run, "evals", start, end, [])
        start = end
    return run


cuts = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(
    lambda widths: [sum(widths[: i + 1]) for i in range(len(widths))]
)


class TestMetrics:
    @given(cuts, st.data())
    @few
    def test_one_flipped_bit_anywhere_is_seen_and_named(self, ends, data):
        run = sealed_parts(*ends)
        victim = data.draw(st.sampled_from(metrics.parts(run, "steps")))
        content = bytearray(victim.path.read_bytes())
        bit = data.draw(st.integers(0, 8 * len(content) - 1))
        content[bit // 8] ^= 1 << bit % 8
        victim.path.write_bytes(content)
        until, damage = metrics.intact_until(run)
        assert until == victim.start
        assert [each.path for each in damage] == [victim.path]
        assert metrics.read_curve(run, "steps").height == victim.start

    @given(cuts)
    @few
    def test_the_curve_is_the_same_before_and_after_compaction(self, ends):
        run = sealed_parts(*ends)
        before = metrics.read_curve(run, "steps")
        metrics.compact(run)
        assert metrics.read_curve(run, "steps").equals(before)
        assert len(metrics.parts(run, "steps")) == 1
        assert metrics.intact_until(run) == (ends[-1], [])

    @given(cuts, st.integers(0, 3))
    @few
    def test_a_kill_during_compaction_loses_nothing(self, ends, removed):
        run = sealed_parts(*ends)
        before = metrics.read_curve(run, "steps")
        for kind in metrics.SCHEMAS:
            old = metrics.parts(run, kind)
            joined = metrics.read_curve(run, kind).to_dicts()
            new = metrics.seal(run, kind, 0, ends[-1], joined)
            for part in [part for part in old if part.path != new.path][:removed]:
                part.path.unlink()
        assert metrics.read_curve(run, "steps").equals(before)
        assert metrics.intact_until(run) == (ends[-1], [])

    @given(cuts, st.data())
    @few
    def test_dropping_keeps_whole_parts_up_to_the_step(self, ends, data):
        run = sealed_parts(*ends)
        step = data.draw(st.sampled_from([0, *ends]))
        metrics.drop_after(run, step)
        assert metrics.intact_until(run) == (step, [])

    def test_a_gap_ends_the_curve(self):
        run = sealed_parts(5, 10, 15)
        metrics.parts(run, "steps")[1].path.unlink()
        assert metrics.intact_until(run)[0] == 5
        assert metrics.read_curve(run, "steps").height == 5

    def test_no_part_is_an_empty_curve(self, tmp_path):
        frame = metrics.read_curve(RunDir(tmp_path), "evals")
        assert frame.schema == pl.Schema(metrics.EVALS)


def checkpointed(step: int = 3) -> RunDir:
    run = RunDir(fresh())
    (run.checkpoint(step) / "d").mkdir(parents=True)
    (run.checkpoint(step) / "d" / "weights").write_bytes(b"12345678")
    (run.checkpoint(step) / "meta").write_bytes(b"{}")
    manifest.write_manifest(run, Manifest(step, "i", "d", "e", 1.0, {}))
    return run


class TestManifest:
    def test_a_whole_checkpoint_is_good(self):
        assert manifest.good_steps(checkpointed()) == ([3], [])

    @given(st.sampled_from(["d/weights", "meta"]), st.data())
    @few
    def test_one_flipped_bit_is_named(self, name, data):
        run = checkpointed()
        path = run.checkpoint(3) / name
        content = bytearray(path.read_bytes())
        bit = data.draw(st.integers(0, 8 * len(content) - 1))
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        good, faults = manifest.good_steps(run)
        assert good == []
        assert str(path) in faults[0]

    @given(st.data())
    @few
    def test_a_flipped_bit_in_the_manifest_itself_is_no_checkpoint(self, data):
        run = checkpointed()
        content = bytearray(run.manifest(3).read_bytes())
        bit = data.draw(st.integers(0, 8 * len(content) - 1))
        content[bit // 8] ^= 1 << bit % 8
        run.manifest(3).write_bytes(content)
        assert manifest.read_manifest(run, 3) in (None, manifest.read_manifest(checkpointed(), 3))

    def test_without_a_manifest_there_is_no_checkpoint(self):
        run = checkpointed()
        run.manifest(3).unlink()
        assert manifest.good_steps(run) == ([], [])

    def test_a_missing_file_is_named(self):
        run = checkpointed()
        (run.checkpoint(3) / "meta").unlink()
        assert "missing" in str(manifest.fault(run, 3))


class TestStatus:
    def test_it_comes_back(self, tmp_path):
        status = Status(State.running, 3, 9, 27, "train", 5, 2, 1.5, 100.0, "m", Writer.here())
        write_status(RunDir(tmp_path), status)
        assert read_status(RunDir(tmp_path)) == status

    @given(st.binary(max_size=40))
    @few
    def test_any_damage_reads_as_pending(self, content):
        run = RunDir(fresh())
        run.status.write_bytes(content)
        assert read_status(run) == Status()

    def test_fields_of_a_later_version_are_passed_over(self, tmp_path):
        atomic.write_json(tmp_path / "status.json", {"state": "finished", "mood": "good"})
        assert read_status(RunDir(tmp_path)).state is State.finished


class TestWriter:
    def test_this_process_is_alive(self):
        assert Writer.here().alive() is True

    def test_a_process_that_ended_is_not_nor_is_a_zombie(self):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        writer = Writer.of(child.pid)
        assert writer.alive() is True
        child.kill()
        deadline = time.monotonic() + 10
        while writer.alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert writer.alive() is False, "a zombie counts as alive"
        child.communicate()
        assert writer.alive() is False

    def test_a_process_id_that_was_given_away_again_is_not_the_writer(self):
        assert Writer(Writer.here().host, os.getpid(), "boot:1").alive() is False

    def test_another_host_has_to_be_asked(self):
        assert Writer("elsewhere", 1, "x").alive() is None


class TestClaim:
    def test_a_claim_excludes_others_until_its_holder_dies_however(self, tmp_path):
        path = tmp_path / "lock"
        code = (
            "import sys, time; from pathlib import Path; from harness.records.claim import claim;"
            "print(claim(Path(sys.argv[1])), flush=True); time.sleep(60)"
        )
        other = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        assert claim(path, patience=0.0) is False
        assert holder(path) == Writer.of(other.pid)
        other.kill()
        other.communicate()
        assert holder(path) is None
        assert claim(path) is True
        release(path)

    def test_a_claim_is_repeatable_and_can_be_given_back(self, tmp_path):
        assert claim(tmp_path / "a")
        assert claim(tmp_path / "a")
        assert holder(tmp_path / "a") == Writer.here()
        release(tmp_path / "a")
        assert holder(tmp_path / "a") is None

    def test_a_reader_does_not_spoil_a_claim(self, tmp_path):
        """Claims wait a moment, since a reader tests by locking."""
        path = tmp_path / "lock"
        path.touch()
        code = (
            "import sys, time; from pathlib import Path; from harness.records.claim import holder\n"
            "end = time.monotonic() + 3\n"
            "while time.monotonic() < end: holder(Path(sys.argv[1]))"
        )
        reader = subprocess.Popen([sys.executable, "-c", code, str(path)])
        try:
            for _ in range(20):
                assert claim(path)
                release(path)
                time.sleep(0.05)
        finally:
            reader.kill()
            reader.communicate()

    def test_nobody_holds_what_is_not_there(self, tmp_path):
        assert holder(tmp_path / "none") is None


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


def test_a_config_that_cannot_be_read_is_one_sentence(tmp_path):
    for content in (b"\xff\xfe", b"modle: 3\n", b"- 1\n", b"a: [\n"):
        (tmp_path / "config.yaml").write_bytes(content)
        with pytest.raises(UserError) as raised:
            read_config(tmp_path / "config.yaml")
        assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match="No such file"):
        read_config(tmp_path / "none.yaml")


@given(st.data())
@few
def test_one_flipped_bit_in_a_config_is_seen(data):
    path = fresh() / "config.yaml"
    config = Config(experiment_name="e")
    config.variant.name = config.data.name = config.optimizer.name = config.schedule.name = "x"
    config.scale = ScaleConfig("s", 1, 2, 3)
    config.optimizer.learning_rate, config.rule.control = 0.5, "x"
    write_config(path, config)
    assert read_config(path) == config
    content = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    assert not sealed(path)
    with contextlib.suppress(UserError):
        assert read_config(path) == config, "a changed value was read as if it were the config's"
