"""Entries of the cache: read back as written, or told and made again; the folder belongs to one user."""

import os
import subprocess
import sys
import time

import pytest

from harness.core.cache.cache_dir import cache_dir, check_cache_writable
from harness.core.cache.cache_entries import CacheEntry
from harness.core.cache.cache_usage import MAX_AGE_DAYS, cache_usage, clear_cache, remove_unused
from harness.core.errors import UserError

ENTRY = CacheEntry("described", "", {"config": 1})


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_an_entry_is_read_as_it_was_written():
    assert ENTRY.read() is None
    ENTRY.write(b"\0\n content")
    assert ENTRY.read() == b"\0\n content"
    assert CacheEntry("described", "", {"config": 2}).read() is None
    ENTRY.write_json({"a": [1, None]})
    assert ENTRY.read_json() == {"a": [1, None]}


def test_every_flipped_bit_is_told_once_and_the_entry_goes(root):
    ENTRY.write(b"content")
    original = ENTRY.path.read_bytes()
    for position in range(8 * len(original)):
        damaged = bytearray(original)
        damaged[position // 8] ^= 1 << position % 8
        ENTRY.path.write_bytes(damaged)
        notes = []
        assert ENTRY.read(notes.append) is None
        assert len(notes) == 1
        assert str(ENTRY.path) in notes[0]
        assert not ENTRY.path.exists()
    for length in range(len(original)):
        ENTRY.path.write_bytes(original[:length])
        assert ENTRY.read(lambda text: None) is None


def test_an_entry_moved_to_another_name_is_damaged():
    ENTRY.write(b"content")
    other = CacheEntry("described", "", {"config": 2})
    ENTRY.path.rename(other.path)
    notes = []
    assert other.read(notes.append) is None
    assert notes


def test_an_entry_of_another_key_is_damaged(root):
    ENTRY.write(b"content")
    (root / "key").write_bytes(bytes(32))
    assert ENTRY.read(lambda text: None) is None


def test_the_key_is_for_its_owner_alone(root):
    ENTRY.write(b"content")
    assert (root / "key").stat().st_mode & 0o777 == 0o600
    (root / "key").chmod(0o640)
    with pytest.raises(UserError, match=r"key: other users can use the key of the cache folder"):
        ENTRY.read()


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720, 0o702])
@pytest.mark.parametrize("place", [".", "described"])
def test_a_folder_that_others_can_write_is_refused(mode, place, root):
    ENTRY.write(b"content")
    (root / place).chmod(mode)
    with pytest.raises(UserError, match=r"other users can write into the cache.*chmod.*AB_HARNESS_CACHE="):
        ENTRY.read()


def test_a_new_cache_is_private_under_any_umask(root):
    before = os.umask(0)
    try:
        ENTRY.write(b"content")
    finally:
        os.umask(before)
    assert root.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
@pytest.mark.parametrize(("owner", "sentence"), [(12345, "cannot be used"), (54321, "belongs to another")])
def test_a_cache_of_another_user_and_a_read_only_one_are_one_sentence(owner, sentence, tmp_path):
    cache = tmp_path / "theirs"
    cache.mkdir(mode=0o555)
    os.chown(cache, owner, owner)
    for folder in [tmp_path, *tmp_path.parents]:
        if folder.stat().st_mode & 0o777 == 0o700:
            folder.chmod(0o755)
    code = (
        "import os; from harness.core.cache import cache_dir; os.setgid(12345); os.setuid(12345)\n"
        "try: cache_dir.check_cache_writable()\n"
        "except cache_dir.UserError as error: print(error)"
    )
    env = os.environ | {"AB_HARNESS_CACHE": str(cache)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert sentence in done.stdout, done.stderr
    assert "AB_HARNESS_CACHE=FOLDER" in done.stdout
    assert done.stdout.count("\n") == 1


def test_a_cache_of_ones_own_can_be_written():
    check_cache_writable()
    assert not [path for path in cache_dir("").iterdir() if path.is_file()]


def test_usage_and_clearing_leave_what_cannot_be_made_again():
    ENTRY.write(b"content")
    CacheEntry("trusted", "", "sweep").write(b"modules")
    assert [(usage.kind, usage.entries) for usage in cache_usage()] == [("described", 1), ("trusted", 1)]
    assert clear_cache([]) > 0
    assert [usage.kind for usage in cache_usage()] == ["trusted"]
    clear_cache(["trusted"])
    assert cache_usage() == []
    with pytest.raises(UserError, match=r"programms: the cache has no such content; did you mean 'programs'"):
        clear_cache(["programms"])


def test_old_entries_go_and_used_ones_stay():
    other = CacheEntry("described", "", {"config": 2})
    for entry in (ENTRY, other):
        entry.write(b"content")
        os.utime(entry.path, (0, 0))
    assert ENTRY.read() == b"content"  # counts as a use
    remove_unused()
    assert ENTRY.read() == b"content"
    assert other.read() is None
    remove_unused(time.time() + (MAX_AGE_DAYS + 1) * 86_400)
    assert ENTRY.read() is None


def test_beyond_their_limit_the_programs_that_were_not_used_for_longest_go(monkeypatch):
    programs = [CacheEntry("programs", "step", number) for number in range(4)]
    for age, program in enumerate(programs):
        program.write(bytes(1000))
        os.utime(program.path, (time.time() - age, time.time() - age))
    monkeypatch.setattr("harness.core.cache.cache_usage.MAX_PROGRAM_BYTES", 2500)
    remove_unused()
    assert [program.read() is None for program in programs] == [False, False, True, True]
