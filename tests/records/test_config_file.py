"""The config in its file: what cannot be read is one sentence, and a flipped bit is seen."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config.schema.run import Config, ScaleConfig
from harness.core.errors import UserError
from harness.records.run.config_file import checksum_ok, read_config, write_config
from tests.records.scratch import few, fresh


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
    assert not checksum_ok(path)
    with contextlib.suppress(UserError):
        assert read_config(path) == config, "a changed value was read as if it were the config's"
