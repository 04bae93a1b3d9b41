"""What an engine tells each of the processes of a run."""

from __future__ import annotations

import pytest

from harness.config.process_group import GROUP_VARIABLE, INDEX_VARIABLE, ProcessGroup, from_env, to_env
from harness.core.errors import UserError


def test_each_reads_what_was_written_for_it():
    told = ProcessGroup(4, "job 7.1", "node3", join_timeout_seconds=20, index=2)
    assert from_env(to_env(told)) == told


def test_an_engine_that_starts_all_alike_tells_each_its_number():
    env = to_env(ProcessGroup(4, "job 7.1"))
    assert [from_env(env | {INDEX_VARIABLE: str(n)}).index for n in range(4)] == [0, 1, 2, 3]


def test_alone_nothing_is_told():
    assert from_env({"SLURM_NTASKS": "4", "SLURM_PROCID": "1"}) is None


@pytest.mark.parametrize(
    "env",
    [
        {INDEX_VARIABLE: "4"},
        {INDEX_VARIABLE: "-1"},
        {INDEX_VARIABLE: ""},
        {INDEX_VARIABLE: "one"},
        {GROUP_VARIABLE: "{"},
        {GROUP_VARIABLE: '{"count": 2}'},
    ],
)
def test_what_no_engine_wrote_is_refused(env):
    with pytest.raises(UserError, match=GROUP_VARIABLE):
        from_env(to_env(ProcessGroup(4, "now")) | env)
