"""Sweeps behind a URL: the verdict is that of the folder, and what cannot be read is one sentence."""

from __future__ import annotations

import asyncio
import errno
import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations

import harness
from harness import cli
from harness.compare import compare
from harness.compare.context.lineage import sweep_provenance
from harness.compare.inputs.noise_floor import LibraryEntry, write_library
from harness.compare.results.to_json import to_json
from harness.core import atomic_files
from harness.core.errors import UserError
from harness.core.png import encode_png
from harness.records.paths import RECORDS, SweepDir
from harness.records.remote import file_listing, local_copy
from harness.records.run.provenance import read_provenance
from harness.report.charts.sample_grids import read_grids
from harness.report.frames.sweep_frames import read_frames
from harness.report.frames.sweep_progress import ProgressReader
from tests.compare.synthetic import Recipe, write_sweep
from tests.compare.test_compare_curves import log

ODD = "a,b %41"
RECIPE = Recipe(variants={"mha": 1.0, ODD: 1.04}, scales={"xs": 10**7, "s": 3 * 10**7}, seeds=(0, 1))
URL = "memory://bucket/runs/trial"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "cache" / "remote"
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A sweep with everything that a comparison may read, what it never does, and noise floors beside it."""
    folder = tmp_path_factory.mktemp("lies") / "runs"
    sweep = write_sweep(folder / "trial", RECIPE)
    for run in sweep.runs():
        atomic_files.write_text(run.timeline, "{}\n")
        atomic_files.write_json(run.manifest(64), {"step": 64})
        atomic_files.write_text(run.checkpoint(64) / "weights", "w" * 1000)
        atomic_files.write_text(run.log, "said")
        atomic_files.write_bytes(run.sample_grid, encode_png(np.zeros((1, 1, 1), np.uint8)))
    for file in (
        sweep.timing,
        sweep.plan,
        sweep.tune.learning_rates,
        sweep.path / "workers" / "xs.log",
        sweep.report,
    ):
        atomic_files.write_json(file, {"hash": "h"})
    first = {run.path.parts[-3]: run for run in sweep.runs() if run.path.parts[-2] == "mha"}
    records = {scale: read_provenance(run) for scale, run in first.items()}
    write_library(
        SweepDir(folder / "null"),
        [
            LibraryEntry(s, 0.001, 9.0, 0.3, 10, r.facts.non_embedding, r.tokens, r.facts.eval_fingerprint)
            for s, r in records.items()
            if r
        ],
    )
    return folder


@pytest.fixture
def bucket(runs) -> MemoryFileSystem:
    files = fsspec.filesystem("memory")
    files.put(str(runs), "/bucket/runs", recursive=True)
    return files


def told(capsys, place: str) -> dict[str, Any]:
    assert cli.main(["compare", place, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    del found["times"]["compare_seconds"]
    return found


@pytest.fixture
def fetched(monkeypatch) -> Counter[str]:
    """Names of the files that were fetched."""
    names: Counter[str] = Counter()
    get = MemoryFileSystem.get_file

    def get_file(self, rpath, *given, **named):
        names[Path(rpath).name] += 1
        return get(self, rpath, *given, **named)

    monkeypatch.setattr(MemoryFileSystem, "get_file", get_file)
    return names


def said(capsys, *arguments: str) -> str:
    """What a mistake is answered with: one line, and nothing else."""
    assert cli.main([*arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


def test_the_verdict_is_that_of_the_folder(runs, bucket, tmp_path, capsys):
    at_home = told(capsys, str(runs / "trial"))
    assert {edge["kind"] for edge in at_home["provenance"]["depends_on"]} >= {"noise_floor", "tune", "rule"}
    assert at_home["provenance"]["runs"][0]["checkpoint"]
    shutil.make_archive(str(tmp_path / "all"), "zip", runs)
    shutil.make_archive(str(tmp_path / "all"), "gztar", runs.parent, runs.name)
    places = [
        URL,
        f"{URL}/",
        f"file://{runs}/trial",
        f"zip://trial::{tmp_path}/all.zip",
        "tar://runs/trial::all.tar.gz",
    ]
    for place in places:
        assert told(capsys, place) == at_home, place
    assert to_json(harness.open_sweep(URL).comparison.rungs) == at_home["rungs"]


def test_an_archive_may_be_the_sweep_itself(runs, tmp_path, capsys):
    shutil.make_archive(str(tmp_path / "trial"), "zip", runs / "trial")
    alone = shutil.copytree(runs / "trial", tmp_path / "alone" / "trial")  # as in the archive, no A/A library
    assert told(capsys, f"zip://::{tmp_path}/trial.zip")["verdict"] == compare(alone).verdict


_opened: list[str] | None = None


def _note_opened(event: str, given: tuple) -> None:
    if event == "open" and _opened is not None:
        _opened.append(str(given[0]))


sys.addaudithook(_note_opened)


def test_whatever_a_comparison_opens_is_fetched(runs):
    """By the interpreter's own account of what is opened, there or not."""
    global _opened
    sweep, _opened = SweepDir(runs / "trial"), []
    comparison = compare(sweep)
    sweep_provenance(sweep, comparison)
    assert list(read_grids(read_frames(sweep, comparison)))
    ProgressReader(sweep).read(0.0)
    asked, _opened = {Path(name) for name in _opened}, None
    below = [path.relative_to(sweep.path).as_posix() for path in asked if path.is_relative_to(sweep.path)]
    kinds = {Path(path).name for path in below}
    assert kinds >= {
        "run.json",
        "plan.json",
        "timing.json",
        "learning_rates.json",
        "timeline.jsonl",
        "samples.png",
    }
    locks = {"driver.lock", "worker.lock"}  # which nobody holds in a copy
    assert [
        path for path in below if not file_listing._matches(path, RECORDS) and Path(path).name not in locks
    ] == []


def test_neither_checkpoints_nor_logs_are_fetched(bucket, fetched):
    sweep = local_copy.fetch_sweep(URL)
    names = {path.name for path in sweep.path.rglob("*") if path.is_file()}
    assert fetched.keys() == names | {"aa_library.json"}
    assert not names & {"weights", "log.txt", "xs.log", "report.html"}


def test_only_what_changed_is_fetched_again(bucket, fetched, cache):
    first = local_copy.fetch_sweep(URL)
    fetched.clear()
    assert local_copy.fetch_sweep(URL) == first
    assert not fetched
    status = f"/bucket/runs/trial/xs/{ODD}/seed0/status.json"
    other = bucket.cat(status)[::-1]  # of the same length
    bucket.pipe(status, other)
    bucket.rm(f"/bucket/runs/trial/s/{ODD}", recursive=True)
    second = local_copy.fetch_sweep(URL)
    assert fetched == {"status.json": 1}
    assert second.run("xs", ODD, 0).status.read_bytes() == other
    assert [run.path.parts[-2] for run in second.runs() if run.path.parts[-3] == "s"] == ["mha", "mha"]
    assert sum(1 for _ in first.runs()) == 8, "who reads the older copy goes on reading it"
    local_copy._remove_old_copies(next(cache.iterdir()), second.path.parent)
    assert first.path.exists()


def test_older_copies_and_what_kills_left_go_after_a_day(bucket, cache, monkeypatch):
    first = local_copy.fetch_sweep(URL)
    (first.path.parents[1] / ".tmp_of_a_kill").mkdir()
    bucket.rm("/bucket/runs/trial/timing.json")
    monkeypatch.setattr(local_copy, "KEEP_SECONDS", -1.0)
    second = local_copy.fetch_sweep(URL)
    assert [*first.path.parents[1].iterdir()] == [second.path.parent]


def test_a_damaged_copy_is_said_and_fetched_again(bucket, cache, capsys):
    first = local_copy.fetch_sweep(URL)
    whole = {path: path.read_bytes() for path in first.path.parent.rglob("*") if path.is_file()}
    local_copy.fetch_sweep(URL)
    assert "damaged" not in capsys.readouterr().err
    for path in (first.rule, next(first.path.rglob("evals-*")), first.path.parent / local_copy.STAMPS):
        path.write_bytes(bytes([whole[path][0] ^ 1]) + whole[path][1:])
        assert local_copy.fetch_sweep(URL) == first
        assert f"{first.path.parent}: this copy of {URL} is damaged" in capsys.readouterr().err
        assert {path: path.read_bytes() for path in whole} == whole


def test_a_fetch_that_breaks_off_leaves_no_copy(bucket, cache, monkeypatch, capsys):
    get, left = MemoryFileSystem.get_file, [20]

    def breaks(self, rpath, *given, **named):
        left[0] -= 1
        if left[0] == 0:
            raise OSError("connection reset")
        return get(self, rpath, *given, **named)

    monkeypatch.setattr(MemoryFileSystem, "get_file", breaks)
    assert "cannot be read (OSError: connection reset)" in said(capsys, "compare", URL)
    assert [path for path in cache.rglob("*") if path.is_file()] == []
    assert sum(1 for _ in local_copy.fetch_sweep(URL).runs()) == 8


def test_a_full_disk_is_not_taken_for_trouble_on_the_other_side(bucket, cache, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(MemoryFileSystem, "get_file", full)
    assert f"does not fit on the disk of {cache}. Free some space there" in said(capsys, "compare", URL)


def test_a_folder_beside_it_that_goes_is_looked_for_again(bucket, monkeypatch, capsys):
    ls, gone = MemoryFileSystem.ls, [1]

    def goes(self, path, **named):
        if path.strip("/") == "bucket/runs/null" and gone[0]:
            gone[0] -= 1
            raise FileNotFoundError(path)
        return ls(self, path, **named)

    monkeypatch.setattr(MemoryFileSystem, "ls", goes)
    assert (local_copy.fetch_sweep(URL).path.parent / "null" / "aa_library.json").exists()
    assert (capsys.readouterr().err, gone) == ("", [0])


def test_files_that_go_meanwhile_are_looked_for_again(bucket, cache, monkeypatch, capsys):
    get, gone = MemoryFileSystem.get_file, [2]

    def goes(self, rpath, lpath, **named):
        if rpath.endswith("timing.json") and gone[0]:
            gone[0] -= 1
            raise FileNotFoundError(rpath)
        get(self, rpath, lpath, **named)
        if rpath.endswith("plan.json") and gone[0] < 0:
            Path(lpath).write_text("half")

    monkeypatch.setattr(MemoryFileSystem, "get_file", goes)
    assert local_copy.fetch_sweep(URL).timing.exists()
    bucket.pipe("/bucket/runs/trial/plan.json", b"newer than it was")
    gone[0] = -1  # a file that never has the length that was listed
    with pytest.raises(UserError, match=r"its files change while they are read. Repeat"):
        local_copy.fetch_sweep(URL)
    assert len([*next(cache.iterdir()).iterdir()]) == 1


def test_what_cannot_be_read_is_one_sentence(bucket, monkeypatch, capsys):
    gone = {"class": "absent_package.Files", "err": "Install absent"}
    monkeypatch.setitem(known_implementations, "absent", gone)
    assert "pip install absent_package" in said(capsys, "compare", "absent://bucket/runs/trial")
    assert "there is no protocol 's33'; did you mean 's3" in said(
        capsys, "compare", "s33://bucket/runs/trial"
    )
    assert "does not exist" in said(capsys, "compare", "memory://bucket/nothing")
    assert "is not a sweep" in said(capsys, "compare", "memory://bucket/runs")
    assert "does not exist" in said(capsys, "compare", "--curves", "memory://bucket/a.csv")
    assert "is a folder" in said(capsys, "compare", "--curves", "memory://bucket/runs")
    assert "this must be a path, but memory is not a mounted file system" in said(capsys, "stop", URL)
    assert "mount it, or copy the run here" in said(capsys, "diff", f"{URL}/xs/mha/seed0", "x")


def test_noise_floors_that_cannot_be_seen_are_told(bucket, monkeypatch, capsys):
    ls = MemoryFileSystem.ls

    def closed(self, path, **named):
        if path.strip("/") == "bucket/runs":
            raise PermissionError("AccessDenied")
        return ls(self, path, **named)

    monkeypatch.setattr(MemoryFileSystem, "ls", closed)
    local_copy.fetch_sweep(URL)
    assert (
        "(PermissionError: AccessDenied), so the noise floors of other sweeps are unknown"
        in capsys.readouterr().err
    )


def test_reports_go_into_the_current_folder(bucket, tmp_path, monkeypatch, capsys):
    pages = []
    monkeypatch.setattr("harness.report.page.render.write_page", lambda page, *_: pages.append(page) or page)
    assert cli.main(["compare", URL, "--html", "--markdown"]) == 0
    assert capsys.readouterr().err == "trial.report.html\n"
    assert pages == [Path("trial.report.html")]
    bucket.copy("/bucket/runs", "/other/runs", recursive=True)
    assert "two sweeps have this report name" in said(
        capsys, "compare", URL, "memory://other/runs/trial", "--html"
    )


def test_curves_may_lie_behind_a_url(tmp_path, capsys):
    log().write_csv(tmp_path / "curves.csv")
    assert cli.main(["compare", "--curves", "curves.csv", "--markdown"]) == 0
    here = capsys.readouterr().out
    fsspec.filesystem("memory").put("curves.csv", "/bucket/curves.csv")
    assert cli.main(["compare", "--curves", "memory://bucket/curves.csv", "--markdown"]) == 0
    assert capsys.readouterr().out == here


def test_a_sweep_elsewhere_is_watched_once(bucket, capsys):
    assert cli.main(["watch", "--once", URL]) == 0
    assert "ended: 8 of 8" in capsys.readouterr().out


class Named:
    """What lists these names in a folder."""

    def __init__(self, protocol: tuple[str, ...], *names: str) -> None:
        self.protocol, self._names = protocol, names

    def ls(self, path, **_):
        return [{"name": name, "type": "file", "size": 1} for name in self._names]


def test_no_name_leads_out_of_the_copy():
    store: Any = Named(("s3",), "b/r/", "b/r/.", "b/r/..", "b/r/a", "b/r/c%20d/")
    assert file_listing._list_folder(store, "b/r", "b/r").keys() == {"a", "c%20d"}
    page: Any = Named(("http", "https"), "https://h/r/a%20b/", "https://h/r/..%2Fx", "https://h/r/%2E%2E/")
    assert file_listing._list_folder(page, "https://h/r", "https://h/r").keys() == {"a b"}
    assert file_listing.RemoteFolder("", page, "https://h/r/a%20b.csv?key=1").name == "a b.csv"
    assert file_listing.RemoteFolder("", page, "https://h/r/..%2Fx").name == "x"


class Far(AsyncFileSystem):
    """A store that answers a question about a folder of runs only when another one has been asked as well."""

    cachable = False
    waiting: asyncio.Condition | None = None
    asked = 0

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = root

    async def _ls(self, path, detail=True, **_):
        if path.endswith(("/mha", ODD)):
            self.waiting = self.waiting or asyncio.Condition()
            async with self.waiting:
                self.asked += 1
                self.waiting.notify_all()
                await asyncio.wait_for(self.waiting.wait_for(lambda: self.asked > 1), timeout=20)
        return [
            {"name": f"{path}/{each.name}", "type": "directory" if each.is_dir() else "file", "size": None}
            for each in (self._root / path).iterdir()
        ]

    async def _info(self, path, **_):
        return {"name": path, "type": "file", "size": (self._root / path).stat().st_size}

    async def _get_file(self, rpath, lpath, **_):
        shutil.copyfile(self._root / rpath, lpath)


def test_folders_are_listed_together_where_a_store_allows_it(runs, monkeypatch):
    monkeypatch.setattr("fsspec.core.url_to_fs", lambda url: (Far(runs.parent), "runs/trial"))
    first, second = local_copy.fetch_sweep("far://trial"), local_copy.fetch_sweep("far://trial")
    assert compare(first).rungs == compare(runs / "trial").rungs
    assert first != second, "where nothing tells whether a file changed, it is fetched again"
