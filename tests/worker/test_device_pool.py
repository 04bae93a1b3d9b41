"""Ranges of devices, against a row of flags; and memory, against files that say what they say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.device_pool import DevicePool
from harness.core.host_memory import free_memory, memory_limit


@given(st.integers(1, 12), st.lists(st.tuples(st.booleans(), st.integers(1, 6)), max_size=40))
def test_ranges_never_overlap_and_a_gap_that_is_there_is_found(devices, moves):
    pool, busy, lent = DevicePool(devices), [False] * devices, []
    for takes, number in moves:
        if takes:
            first = pool.allocate(number)
            gaps = [i for i in range(devices - number + 1) if not any(busy[i : i + number])]
            assert (first is None) == (not gaps)
            if first is not None:
                assert first in gaps
                busy[first : first + number] = [True] * number
                lent.append((first, number))
        elif lent:
            first, width = lent.pop(number % len(lent))
            pool.free(first, width)
            busy[first : first + width] = [False] * width


def test_the_smallest_gap_that_holds_it_is_taken():
    pool = DevicePool(10)
    assert [pool.allocate(3), pool.allocate(1), pool.allocate(2), pool.allocate(1)] == [0, 3, 4, 6]
    pool.free(0, 3)
    pool.free(4, 2)
    assert pool.allocate(2) == 4
    assert pool.allocate(4) is None


def test_parts_of_a_range_come_back_one_by_one():
    pool = DevicePool(4)
    assert pool.allocate(4) == 0
    pool.free(2, 2)
    assert pool.allocate(3) is None
    pool.free(0, 2)
    assert pool.allocate(4) == 0


def test_devices_that_were_not_lent_are_not_taken_back():
    pool = DevicePool(4)
    pool.allocate(2)
    with pytest.raises(ValueError, match="not all allocated"):
        pool.free(1, 2)


def machine(root, cgroup):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemTotal:  8000 kB\nMemFree: 1 kB\nMemAvailable:  6000 kB\n")
    (root / "proc/self/cgroup").write_text(cgroup)
    return root


def test_without_groups_the_machine_is_the_limit(tmp_path):
    root = machine(tmp_path, "0::/\n")
    assert (memory_limit(root), free_memory(root)) == (8000 * 1024, 6000 * 1024)
    assert memory_limit(tmp_path / "elsewhere") == float("inf")


def group(root, folder, limit, use, cached, version):
    path = root / "sys/fs/cgroup" / folder
    path.mkdir(parents=True)
    names = [("memory.limit_in_bytes", "memory.usage_in_bytes"), ("memory.max", "memory.current")]
    for name, value in zip(names[version - 1], (limit, use), strict=True):
        (path / name).write_text(f"{value}\n")
    key = "total_inactive_file" if version == 1 else "inactive_file"
    (path / "memory.stat").write_text(f"inactive_file {cached}\n{key} {cached}\nanon 5\n")


def test_a_group_limits_it_and_its_page_cache_is_not_use(tmp_path):
    root = machine(tmp_path, "0::/jobs/mine\n")
    group(root, "jobs", 3_000_000, 1_000_000, 400_000, version=2)
    group(root, "jobs/mine", "max", 500_000, 0, version=2)
    assert (memory_limit(root), free_memory(root)) == (3_000_000, 2_400_000)


def test_and_so_does_one_of_the_first_version(tmp_path):
    root = machine(tmp_path, "9:name=systemd:/\n4:memory:/mine\n0::/\n")
    group(root, "memory/mine", 2_000_000, 1_500_000, 100_000, version=1)
    assert (memory_limit(root), free_memory(root)) == (2_000_000, 600_000)
