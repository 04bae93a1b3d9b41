"""Code that a process has loaded, against what is on disk, and what users' modules read beside it."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import harness
from harness.core import loaded_code
from harness.core.loaded_code import code_hash, imported_names, outside_reads, own_code

HASH = "from harness.core import atomic_files, loaded_code as l; print(l.code_hash(l.own_code()))"


@pytest.fixture
def as_worker(monkeypatch):
    """The process looks as if it were a worker, and no other test has read anything."""
    main_file = f"{Path(harness.__file__).parent}/__main__.py"
    monkeypatch.setattr(sys.modules["__main__"], "__file__", main_file, raising=False)
    monkeypatch.setattr(loaded_code, "_outside_reads", [])
    monkeypatch.setattr(loaded_code, "_codes", [*loaded_code._codes])


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Function that writes a module of a user's own and imports it."""
    monkeypatch.syspath_prepend(tmp_path)

    def write_and_import(text: str, name: str = "users_module"):
        (tmp_path / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        sys.modules.pop(name, None)
        return importlib.import_module(name)

    yield write_and_import
    for name in ("users_module", "users_helper"):
        sys.modules.pop(name, None)


def current_hash() -> str:
    code = own_code()
    assert code is not None
    return code_hash(code)


def test_a_module_and_its_helper_are_part_of_the_hash(as_worker, load):
    hashes = [current_hash()]
    for helper in ("X = 1\n", "X = 2\n"):
        load(helper, "users_helper")
        load("import users_helper\n")
        hashes.append(current_hash())
    assert len({*hashes}) == 3


def test_it_is_the_loaded_code_whatever_became_of_its_file(as_worker, load, tmp_path):
    load("X = 1\n")
    before = current_hash()
    (tmp_path / "users_module.py").write_text("X = 2\n")
    assert current_hash() == before


def test_a_file_that_python_took_from_a_stale_pyc_counts_as_what_was_run(
    as_worker, load, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    load("X = 1\n")
    before, time = current_hash(), os.stat(tmp_path / "users_module.py").st_mtime_ns
    (tmp_path / "users_module.py").write_text("X = 2\n")
    os.utime(tmp_path / "users_module.py", ns=(time, time))
    sys.modules.pop("users_module")
    assert importlib.import_module("users_module").X == 1
    (first, *_, last) = [code for code in loaded_code._codes if code.co_filename.startswith(str(tmp_path))]
    assert loaded_code._digest(first) == loaded_code._digest(last)
    assert current_hash() != before, "loaded once more"


def test_a_file_loaded_before_the_hook_counts_unless_it_has_changed(as_worker, load, tmp_path, monkeypatch):
    load("X = 1\n")
    path = str(tmp_path / "users_module.py")
    others = [code for code in loaded_code._codes if code.co_filename != path]
    monkeypatch.setattr(loaded_code, "_codes", others)
    monkeypatch.setattr(loaded_code, "_installed_at", [os.stat(path).st_ctime + 1])
    assert Path(path) in (own_code() or [])
    monkeypatch.setattr(loaded_code, "_installed_at", [os.stat(path).st_ctime - 1])
    assert own_code() is None


def test_under_a_runner_of_tests_or_a_prompt_code_is_not_known(monkeypatch):
    assert own_code() is None
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    assert own_code() is None


def test_the_hash_depends_neither_on_pyc_files_nor_on_the_seed_of_hashes(tmp_path):
    hashes = set()
    for seed in ("1", "2"):
        env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPYCACHEPREFIX": str(tmp_path / seed)}
        for _ in range(2):
            hashes.add(subprocess.run([sys.executable, "-c", HASH], env=env, capture_output=True).stdout)
    assert len(hashes) == 1
    assert len(hashes.pop()) == 65


def test_rooms_can_be_left_out(as_worker):
    all_code, less = own_code(), own_code(without=["core/cache", "core"])
    assert all_code
    assert less
    assert any("/core/" in str(getattr(part, "co_filename", part)) for part in all_code)
    assert not any("harness/core/" in getattr(part, "co_filename", "") for part in less)


def call_from_package(function):
    """Call a function from code of the package, as it calls users' modules."""
    file = f"{Path(harness.__file__).parent}/models/caller.py"
    exec(compile("function()", file, "exec"), {"function": function})


@pytest.mark.parametrize(
    "does", ["open('{}').read()", "import os; os.listdir('/')", "import subprocess; subprocess.run(['true'])"]
)
def test_what_users_modules_read_is_seen_when_the_package_calls_them(does, as_worker, load, tmp_path):
    (tmp_path / "numbers.txt").write_text("3")
    module = load(f"def work():\n    {does.format(tmp_path / 'numbers.txt')}\n")
    module.work()
    assert outside_reads() == [], "a script of the user's own"
    call_from_package(module.work)
    assert outside_reads()


def test_what_a_module_reads_while_it_is_imported_is_seen(as_worker, load, tmp_path):
    (tmp_path / "numbers.txt").write_text("3")
    call_from_package(lambda: load(f"X = open('{tmp_path / 'numbers.txt'}').read()\n"))
    assert outside_reads() == [f"open {tmp_path / 'numbers.txt'}"]


def test_imports_and_what_the_package_reads_itself_are_not_meant(as_worker, load, tmp_path):
    load("X = 1\n", "users_helper")
    sys.modules.pop("users_helper")
    module = load("def work():\n    import users_helper, linecache\n    linecache.getlines(__file__)\n")
    call_from_package(module.work)
    call_from_package(lambda: None)
    assert outside_reads() == []


def test_names_that_code_imports():
    code = compile("def f():\n    import a.b\n    from c.d import e\n", "x.py", "exec")
    assert {"a.b", "c.d", "e"} <= imported_names(code)
