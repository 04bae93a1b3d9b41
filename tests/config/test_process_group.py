"""What an engine tells each of the processes of a run."""

from __future__ import annotations

import pytest

from harness.config.process_group import INDEX, NAME, ProcessGroup, from_env, to_env
from harness.core.errors import UserError


def test_each_reads_what_was_written_for_it():
    told = ProcessGroup(4, "job 7.1", "node3", arrive_seconds=20, index=2)
    assert from_env(to_env(told)) == told


def test_an_engine_that_starts_all_alike_tells_each_its_number():
    env = to_env(ProcessGroup(4, "job 7.1"))
    assert [from_env(env | {INDEX: str(n)}).index for n in range(4)] == [0, 1, 2, 3]


def test_alone_nothing_is_told():
    assert from_env({"SLURM_NTASKS": "4", "SLURM_PROCID": "1"}) is None


@pytest.mark.parametrize(
    "env", [{INDEX: "4"}, {INDEX: "-1"}, {INDEX: ""}, {INDEX: "one"}, {NAME: "{"}, {NAME: '{"count": 2}'}]
)
def test_what_no_engine_wrote_is_refused(env):
    with pytest.raises(UserError, match=NAME):
        from_env(to_env(ProcessGroup(4, "now")) | env)
