"""Every verb that reads a checkpoint does so in a folder whose name reads like a pattern."""

from __future__ import annotations

from harness.cli import main
from harness.records.paths import RunDir
from tests.inspection.conftest import trained


def test_verbs_in_such_a_folder(tmp_path, monkeypatch, capsys):
    run = trained(tmp_path, "schedule.branches=[]", "model.qk_norm=true")
    odd = tmp_path / "exp[1]" / "lr[0.1] *" / "xs" / "mha"
    odd.mkdir(parents=True)
    run = RunDir(run.path.rename(odd / "seed0"))
    monkeypatch.chdir(tmp_path / "exp[1]")
    name = str(run.path.relative_to(tmp_path / "exp[1]"))
    assert main(["verify", name, "--cached"]) == 0
    assert main(["sample", name, "--tokens", "4"]) == 0
    assert main(["export", name, "--to", "hf", "out[1]"]) == 0
    assert (tmp_path / "exp[1]" / "out[1]" / "model.safetensors").is_file()
    assert main(["diff", f"{name}@8", name]) == 0
    assert "Traceback" not in capsys.readouterr().err
