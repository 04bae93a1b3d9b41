"""Users' modules: which files belong to a mechanism, and what Python may find in the current folder."""

import subprocess
import sys

import pytest

from harness.config.users_modules import source_paths

MECHANISM = "import json, numpy\nimport my_ops\nfrom my_package.deep import scale\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Folder of a user with a mechanism, what it imports, and what it does not import."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_mechanism.py").write_text(MECHANISM)
    (tmp_path / "my_ops.py").write_text("from my_constants import TWO\nimport my_mechanism, missing_module\n")
    (tmp_path / "my_constants.py").write_text("TWO = 2\n")
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").write_text("from . import deep\n")
    (tmp_path / "my_package" / "deep.py").write_text("import my_broken\nscale = 1\n")
    (tmp_path / "my_broken.py").write_text("this is no Python\n")
    (tmp_path / "json.py").write_text("raise SystemExit('json.py ran')\n")
    (tmp_path / "polars.py").write_text("raise SystemExit('polars.py ran')\n")
    (tmp_path / "unrelated.py").write_text("x = 1\n")
    return tmp_path


def test_the_files_of_a_mechanism_are_those_that_it_imports(folder):
    names = {path.name for path in source_paths(["my_mechanism"])}
    assert names == {"my_mechanism.py", "my_ops.py", "my_constants.py", "my_package", "my_broken.py"}
    assert source_paths([]) == []


def test_of_a_nested_module_the_whole_package_counts(folder):
    (folder / "my_package" / "inner").mkdir()
    (folder / "my_package" / "inner" / "block.py").write_text("from ..deep import scale\n")
    assert folder / "my_package" in source_paths(["my_package.inner.block"])


HASH = """
from harness.config.schema.run import Config
from harness.records.run.provenance import code_hash_of
print(code_hash_of(Config(imports=["my_mechanism"])))
"""


def python(code, folder):
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_the_code_hash_follows_every_module_that_a_mechanism_imports(folder):
    before = python(HASH, folder)
    (folder / "unrelated.py").write_text("x = 2\n")
    assert python(HASH, folder) == before
    for name in ("my_constants.py", "my_package/deep.py", "my_ops.py"):
        with (folder / name).open("a") as file:
            file.write("# edited\n")
        after = python(HASH, folder)
        assert after != before, name
        before = after


FIND = """
import importlib
from harness.config.users_modules import find_modules
find_modules(["my_ops"])
print(importlib.import_module("my_constants").TWO)
import json, polars
try:
    importlib.import_module("unrelated")
except ModuleNotFoundError:
    print("not found")
"""


def test_the_current_folder_has_what_listed_modules_import_and_nothing_else(folder):
    assert python(FIND, folder).split("\n")[:2] == ["2", "not found"]


def test_packages_of_another_environment_on_the_path_are_installed(folder):
    site = folder / "other" / "site-packages"
    (site / "my_ops").mkdir(parents=True)
    (site / "my_ops" / "__init__.py").write_text("x = 1\n")
    (folder / "my_ops.py").unlink()
    code = "from harness.config.users_modules import source_paths; print(source_paths(['my_mechanism']))"
    start = f"import sys; sys.path.append({str(site)!r}); {code}"
    done = subprocess.run([sys.executable, "-P", "-c", start], capture_output=True, text=True, check=True)
    assert "my_mechanism.py" in done.stdout
    assert "my_ops" not in done.stdout
