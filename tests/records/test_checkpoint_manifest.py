"""No manifest, no checkpoint; a flipped bit is named."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.records.paths import RunDir
from harness.records.run import checkpoint_manifest
from harness.records.run.checkpoint_manifest import Manifest
from tests.records.scratch import few, fresh


def checkpointed(step: int = 3) -> RunDir:
    run = RunDir(fresh())
    (run.checkpoint(step) / "d").mkdir(parents=True)
    (run.checkpoint(step) / "d" / "weights").write_bytes(b"12345678")
    (run.checkpoint(step) / "meta").write_bytes(b"{}")
    checkpoint_manifest.write_manifest(run, Manifest(step, "i", "d", "e", 1.0, {}))
    return run


class TestManifest:
    def test_a_whole_checkpoint_is_good(self):
        assert checkpoint_manifest.valid_steps(checkpointed()) == ([3], [])

    @given(st.sampled_from(["d/weights", "meta"]), st.data())
    @few
    def test_one_flipped_bit_is_named(self, name, data):
        run = checkpointed()
        path = run.checkpoint(3) / name
        content = bytearray(path.read_bytes())
        bit = data.draw(st.integers(0, 8 * len(content) - 1))
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        good, faults = checkpoint_manifest.valid_steps(run)
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
        assert checkpoint_manifest.read_manifest(run, 3) in (
            None,
            checkpoint_manifest.read_manifest(checkpointed(), 3),
        )

    def test_without_a_manifest_there_is_no_checkpoint(self):
        run = checkpointed()
        run.manifest(3).unlink()
        assert checkpoint_manifest.valid_steps(run) == ([], [])

    def test_a_missing_file_is_named(self):
        run = checkpointed()
        (run.checkpoint(3) / "meta").unlink()
        assert "missing" in str(checkpoint_manifest.corruption_reason(run, 3))
