"""A state is saved from a copy exactly where the copy fits beside everything else."""

from hypothesis import given
from hypothesis import strategies as st

from harness.records.run.save_copy import save_copy_bytes

sizes = st.integers(0, 10**15)


@given(sizes, sizes, sizes)
def test_with_the_copy_a_device_never_holds_more_than_its_limit(copy, rest, limit):
    held = save_copy_bytes(copy, rest, limit)
    assert held in (0, copy)
    assert not held or held + rest <= limit
    assert held or not copy or copy + rest > limit
