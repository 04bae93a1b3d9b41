"""Where a path is needed, a URL is refused before anything is made; `file://` is a path."""

from __future__ import annotations

import pytest

from harness import cli
from harness.config.compose import compose
from harness.core.cache.cache_dir import cache_dir
from harness.core.errors import UserError
from harness.core.hashing import hash_json
from harness.core.paths import is_remote, local_path


@pytest.mark.parametrize(
    "place", ["runs", "/a/b", "a:b", "./s3:/b", "pack:prose", "C:x", "file:///a", "FILE:///a"]
)
def test_paths(place):
    assert not is_remote(place)
    assert local_path(place, "") == place.removeprefix("file://").removeprefix("FILE://")


@pytest.mark.parametrize(
    "place", ["s3://b/x", "gs://b", "zip::https://h/x.zip", "zip://a::b.zip", "memory://x"]
)
def test_urls(place):
    assert is_remote(place)
    with pytest.raises(
        UserError, match=r"^at=\S+: this must be a path, but \w+ is not a mounted file system; move it$"
    ):
        local_path(place, "move it", "at=")


@pytest.mark.parametrize("verb", ["sweep", "train", "plan"])
def test_runs_cannot_lie_behind_a_url(verb, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "harness.launcher.stages.describe_runs.describe_configs", lambda *_: pytest.fail("described")
    )
    assert cli.main([verb, "runs=s3://bucket/x"]) == 2
    out, err = capsys.readouterr()
    assert err.startswith(
        "runs=s3://bucket/x: this must be a path, but s3 is not a mounted file system; mount it, or train"
    )
    assert (out, err.count("\n"), [*tmp_path.iterdir()]) == ("", 1, [])


def test_files_of_a_config_are_paths():
    assert compose(["runs=file:///x/y"]).runs == "/x/y"
    assert hash_json(compose(["data.tokenizer=file:///x.json"])) == hash_json(
        compose(["data.tokenizer=/x.json"])
    )
    for key in ("data.sources.prose.path", "data.sources.prose.validation"):
        assert hash_json(compose([f"{key}=file:///x"])) == hash_json(compose([f"{key}=/x"]))
        assert hash_json(compose([f"{key}=s3://b/x"])) != hash_json(compose([f"{key}=/x"]))
    for key in ("data.tokenizer", "finetune.parent"):
        with pytest.raises(UserError, match=f"{key}=s3://b/x: this must be a path"):
            compose([f"{key}=s3://b/x"])


def test_the_cache_is_a_folder(monkeypatch):
    monkeypatch.setenv("AB_HARNESS_CACHE", "s3://b/cache")
    with pytest.raises(UserError, match="AB_HARNESS_CACHE=s3://b/cache: this must be a path"):
        cache_dir("remote")
