"""Every verb in a folder of somebody else: nothing there runs unasked, is shown, or writes outside."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness import cli
from harness.core.atomic_files import read_checksummed_json, write_checksummed_json
from harness.core.errors import UserError
from harness.core.png import encode_png
from harness.records.paths import RunDir, SweepDir
from harness.records.run.config_file import read_config, write_config
from harness.records.run.find_checkpoint import find_run
from harness.records.sweep.trusted_modules import check_trusted, remember_modules
from tests.compare.synthetic import Draft, Recipe, write_sweep

BAIT = ("polars", "random", "json", "numpy", "yaml", "hydra", "rich", "jax", "evil")
PRIVATE = b"a private file of the reader"
TINY = (
    *("scale=xs", "seed=0", "scale.parameters=10000", "scale.tokens=5000", "evaluation.tokens=2048"),
    *("rule.positive_control=null", "imports=[mine]"),
)


class Folder:
    """A working folder in which every tempting module notes that it ran."""

    def __init__(self, path: Path):
        self.path, self.ran = path / "work", path / "ran.txt"
        self.path.mkdir()
        for name in (*BAIT, "mine"):
            note = f"open({str(self.ran)!r}, 'a').write({name!r} + ' ')\n"
            (self.path / f"{name}.py").write_text(note)
        self.cache = path / "cache"

    def harness(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = os.environ | {"AB_HARNESS_CACHE": str(self.cache)}
        command = [str(Path(sys.executable).with_name("harness")), *arguments]
        return subprocess.run(
            command, cwd=self.path, env=env, capture_output=True, text=True, check=False, timeout=600
        )

    def modules_that_ran(self) -> set[str]:
        return set(self.ran.read_text().split()) if self.ran.exists() else set()


def import_evil(draft: Draft) -> None:
    draft.config["imports"] = ["evil"]


@pytest.fixture
def folder(tmp_path) -> Folder:
    """A folder with a sweep whose names lead elsewhere and whose files are links to a private one."""
    folder = Folder(tmp_path)
    private = tmp_path / "private.png"
    private.write_bytes(PRIVATE)
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "name.png").write_bytes(PRIVATE)
    sweep = write_sweep(folder.path / "sweep", Recipe(scales={"xs": 10**7}), import_evil)
    control, treatment = (sweep.run("xs", name, 0) for name in ("mha", "hybrid"))
    control.sample_grid.symlink_to(private)
    treatment.sample_grid.write_bytes(encode_png(np.zeros((1, 1, 1), np.uint8)))
    record = read_checksummed_json(treatment.run)
    assert record
    write_checksummed_json(treatment.run, record | {"variant": "x/../../../../victim/name"})
    linked = sweep.run("xs", "mha", 1)
    for path in (linked.config, next(linked.metrics.glob("evals-*"))):
        path.rename(tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
    return folder


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "arguments",
    [
        ("compare", "sweep", "--html", "--pictures"),
        ("compare", "sweep", "--json"),
        ("watch", "sweep", "--once"),
        ("stop", "sweep"),
    ],
)
def test_reading_runs_nothing_shows_nothing_private_and_writes_only_into_the_sweep(folder, arguments):
    before = files(folder.path.parent)
    result = folder.harness(*arguments)
    assert "Traceback" not in result.stderr
    assert folder.modules_that_ran() == set()
    after = files(folder.path.parent)
    new = {path for path in after if after[path] != before.get(path)}
    sweep = SweepDir(folder.path / "sweep")
    assert all(sweep.path in path.parents or folder.cache in path.parents for path in new)
    if "--html" in arguments:
        assert result.returncode == 0
        page = sweep.report.read_text()
        assert base64.b64encode(PRIVATE).decode() not in page
        for text in (page, result.stderr):
            assert "samples.png is not shown: it is a link that leads out of its folder" in text
        assert any(path.name.startswith("samples_x_") for path in new)
    if "--json" in arguments:
        assert "it is a link that leads out of its folder" in result.stdout


def test_pictures_are_not_written_through_a_link(folder):
    (folder.path / "sweep" / "pictures").symlink_to(folder.path.parent / "victim")
    result = folder.harness("compare", "sweep", "--pictures")
    assert result.returncode == 2
    assert "sweep/pictures: it is a link that leads out of its folder. Remove the link" in result.stderr
    assert [path.name for path in (folder.path.parent / "victim").iterdir()] == ["name.png"]


@pytest.mark.parametrize(
    "arguments", [("sweep", "--dry-run", "variant=mha"), ("plan", "variant=mha"), ("--help",), ("--version",)]
)
def test_planning_runs_no_file_that_is_not_listed(folder, arguments):
    result = folder.harness(*arguments, *(TINY if "variant=mha" in arguments else ()))
    assert result.returncode == 0, result.stderr
    assert folder.modules_that_ran() <= {"mine"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Folder:
    """A folder in which `sweep` and `train` imported a module of the user."""
    folder = Folder(tmp_path_factory.mktemp("trained"))
    for verb, name, variant in (("sweep", "own", "mha,short"), ("train", "alone", "mha")):
        result = folder.harness(verb, f"variant={variant}", f"experiment_name={name}", *TINY)
        assert result.returncode == 0, result.stderr
        assert folder.modules_that_ran() == {"mine"}
        folder.ran.unlink()
    shutil.copytree(folder.path / "runs" / "own", folder.path / "stranger")
    return folder


def verbs(run: RunDir, tmp_path: Path) -> dict[str, tuple[str, ...]]:
    where = str(run.path)
    return {
        "verify": ("verify", where, "--steps", "1"),
        "diff": ("diff", where, str(run.path.parents[1] / "short" / "seed0")),
        "sample": ("sample", where, "--tokens", "2"),
        "export": ("export", where, "--to", "hf", str(tmp_path / "exported")),
    }


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["verify", "diff", "sample", "export"])
def test_modules_of_a_run_are_imported_only_when_they_are_trusted(trained, verb, tmp_path):
    strangers = RunDir(Path("stranger/xs/mha/seed0"))
    trained.ran.unlink(missing_ok=True)
    refused = trained.harness(*verbs(strangers, tmp_path)[verb])
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    module = trained.path / "mine.py"
    assert f"imports mine ({module}), which would run that code. Read it, and add --trust" in refused.stderr
    assert trained.modules_that_ran() == set()
    if verb not in ("verify", "sample"):
        return  # test_the_option_reaches_the_work: a process that imports JAX takes seconds
    allowed = trained.harness(*verbs(strangers, tmp_path)[verb], "--trust")
    assert allowed.returncode == 0, allowed.stderr
    assert trained.modules_that_ran() == {"mine"}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("inspection.diff.diff_checkpoints.diff", ["diff", "a", "b"]),
        ("inspection.export_hf.export", ["export", "a", "--to", "hf", "out"]),
    ],
)
@pytest.mark.parametrize("trust", [True, False])
def test_the_option_reaches_the_work(monkeypatch, capsys, name, options, trust):
    def refuse(*_, trust: bool):
        raise UserError(f"trust={trust}")

    monkeypatch.setattr(f"harness.{name}", refuse)
    assert cli.main([*options, *(["--trust"] if trust else [])]) == 2
    assert capsys.readouterr().err == f"trust={trust}\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["own", "alone"])
def test_a_sweep_that_was_trained_here_is_trusted_with_the_same_modules(trained, name, tmp_path):
    arguments = ("sample", str(trained.path / "runs" / name / "xs" / "mha" / "seed0"), "--tokens", "2")
    result = trained.harness(*arguments)
    assert result.returncode == 0, result.stderr
    elsewhere = Folder(tmp_path)
    elsewhere.cache = trained.cache
    other_module = elsewhere.harness(*arguments)
    assert other_module.returncode == 2
    assert str(elsewhere.path / "mine.py") in other_module.stderr
    assert elsewhere.modules_that_ran() == set()


@pytest.mark.slow
def test_a_config_that_lists_other_modules_is_written_again_before_a_worker_reads_it(trained):
    run = SweepDir(trained.path / "runs" / "own").run("xs", "mha", 0)
    config = read_config(run.config)
    config.imports = ["evil"]
    write_config(run.config, config)
    trained.ran.unlink(missing_ok=True)
    result = trained.harness("sweep", "variant=mha,short", "experiment_name=own", *TINY)
    assert result.returncode == 0, result.stderr
    assert "evil" not in trained.modules_that_ran()
    assert read_config(run.config).imports == ["mine"]


def test_trust_is_remembered_for_one_sweep_its_modules_and_their_files(tmp_path, monkeypatch):
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "cache"))
    own, copy = (
        write_sweep(tmp_path / name, Recipe(scales={"xs": 10**7}), import_evil) for name in ("own", "copy")
    )
    runs = [find_run(sweep.run("xs", "mha", 0).path) for sweep in (own, copy)]
    for name in ("here", "elsewhere"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "evil.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path / "here")
    remember_modules(own, ["evil"])
    check_trusted(runs[0], trust=False)
    check_trusted(*runs, trust=True)
    with pytest.raises(UserError, match=r"copy/xs/mha/seed0: its config imports evil \(.*here/evil.py\)"):
        check_trusted(*runs, trust=False)
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"own/xs/mha/seed0: .*elsewhere/evil.py"):
        check_trusted(runs[0], trust=False)
