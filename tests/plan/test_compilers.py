"""`harness plan --compile`: the compiled mesh, the process that compiles it, what is left on failure."""

import dataclasses
import functools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import cli
from harness.aot.protocol import CompileStats, Target
from harness.cli.views.plan_compilers import compiler_section
from harness.config.compose import compose
from harness.config.schema.cluster import MeshConfig
from harness.config.schema.run import Remat
from harness.core.errors import UserError
from harness.estimate.layouts import config_layout, with_layout
from harness.plan import Layout
from harness.plan.compilers import queries as room
from harness.plan.compilers.queries import CompilerAnswer, ask_compilers, parse_targets
from harness.plan.compilers.trainable_mesh import planned_config, planned_memory, smaller_mesh
from harness.plan.plan_cluster import plan_on_cluster
from harness.plan.plan_types import PlannedRun, SweepPlan
from harness.records.run.config_file import read_config
from harness.report.tables.plan_sections import print_sections
from tests.cli.test_plan import asked_for, facts_of, made_up
from tests.plan.requested import RequestedRun
from tests.schemas.valid import check_output

__all__ = ["made_up"]

NO_CLUSTER: Any = None
"""In the place of a machine that nobody asks about."""


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "cache"))


@functools.cache
def small():
    return compose(["scale=xs", "scale.batch=12288", "scale.tokens=1572864"])


def local(count: int = 1, **nodes) -> tuple[list[RequestedRun], SweepPlan]:
    """Runs on this machine that differ in their seeds, and their plan."""
    config = dataclasses.replace(small(), **nodes)
    runs = [
        RequestedRun(
            f"xs/mha/seed{seed}", dataclasses.replace(config, seed=seed, data_seed=seed), facts_of(config)
        )
        for seed in range(count)
    ]
    return runs, SweepPlan(tuple(planned(run.name) for run in runs), NO_CLUSTER)


def planned(name: str, **changed) -> PlannedRun:
    return PlannedRun(
        name=name, parameters=1, active_parameters=1, flops_per_token=1.0, tokens=1, kind="h100", chips=1,
        devices=1, batch=8, **changed,
    )  # fmt: skip


def seen(**changed) -> CompileStats:
    return dataclasses.replace(CompileStats(Target.abstract, "made up", 8, 1.0, 2**30), **changed)


class Compilers:
    """In the place of processes: what each is asked, and what it says, where it does not `die` of a batch."""

    def __init__(self, monkeypatch, die=()):
        self.asked, self.die = [], die
        monkeypatch.setattr(room, "_run_compiler", self)

    def __call__(self, command, patience):
        request = json.loads(Path(command[-1]).read_text())
        batches = [read_config(Path(path)).scale.batch for path in request["configs"]]
        self.asked.append((request["target"], batches))
        lines = []
        for batch in batches:
            if batch in self.die:
                return "\n".join(lines), "it died"
            lines.append(json.dumps({**dataclasses.asdict(seen()), "target": request["target"]}))
        return "\n".join(lines), ""


def of_batches(*batches: int) -> tuple[list[RequestedRun], SweepPlan]:
    """Runs of one step each, which differ in the batch."""
    runs, sweep_plan = local(len(batches))
    for run, batch in zip(runs, batches, strict=True):
        run.config = dataclasses.replace(run.config, scale=dataclasses.replace(run.config.scale, batch=batch))
    return runs, sweep_plan


def test_runs_that_differ_in_seeds_are_asked_about_once_and_remembered(monkeypatch):
    compilers = Compilers(monkeypatch)
    runs, sweep_plan = local(3)
    (answer,) = ask_compilers(runs, sweep_plan, [Target.abstract])
    assert answer.runs == tuple(run.name for run in runs)
    assert answer.seen == seen()
    assert len(compilers.asked) == 1
    assert ask_compilers(runs, sweep_plan, [Target.abstract]) == (answer,)
    assert len(compilers.asked) == 1, "remembered"
    ask_compilers(runs, sweep_plan, [Target.cpu])
    runs[0].config.mesh = MeshConfig(data=2)
    ask_compilers(runs[:1], sweep_plan, [Target.abstract])
    assert len(compilers.asked) == 3, "another target, another mesh"


def test_where_a_process_dies_the_step_that_it_was_at_is_to_blame(monkeypatch):
    compilers = Compilers(monkeypatch, die=[16])
    runs, sweep_plan = of_batches(8, 16, 32)
    first, second, third = ask_compilers(runs, sweep_plan, [Target.abstract])
    assert compilers.asked == [("abstract", [8, 16, 32]), ("abstract", [32])]
    assert second.error == "abstract: it died"
    assert second.seen is None
    assert first.seen == third.seen == seen()
    compilers.die = ()
    assert ask_compilers(runs, sweep_plan, [Target.abstract])[1].seen == seen(), "what failed is tried again"


def test_each_step_is_compiled_in_a_process_of_its_own(monkeypatch):
    compilers = Compilers(monkeypatch)
    ask_compilers(*of_batches(8, 16), [Target.cpu])
    assert compilers.asked == [("cpu", [8]), ("cpu", [16])]


def test_a_process_that_dies_or_is_late_is_a_sentence():
    code = "import os, sys; print('{}', flush=True); print('no more memory', file=sys.stderr, flush=True); "
    assert room._run_compiler([sys.executable, "-c", code + "os.abort()"], 60) == (
        "{}\n",
        "the compiler's process ended with SIGABRT: no more memory",
    )
    said, trouble = room._run_compiler([sys.executable, "-c", code + "import time; time.sleep(60)"], 1.0)
    assert (said, trouble) == ("{}\n", "no answer within 1 s, so it was ended")


def test_other_machines_compilers_are_asked_where_they_are(monkeypatch):
    monkeypatch.setattr(room, "plan_python", lambda: None)
    runs = asked_for(1)
    runs[0].config.cluster = compose(["cluster=h100_16k"]).cluster
    sweep_plan = plan_on_cluster(runs, runs[0].config.cluster)
    (cuda,) = ask_compilers(runs, sweep_plan, [Target.cuda])
    (tpu,) = ask_compilers(runs, sweep_plan, [Target.tpu])
    assert cuda.error == "cuda: its compiler is not here; run `make plan-extras`"
    assert "cannot compile for H100-80G. Use --compile cuda." in tpu.error
    (here,) = ask_compilers(*local(), [Target.tpu])
    assert "cluster=local has no chips to compile for" in here.error


def test_the_mesh_of_a_planned_run_is_that_of_its_plan():
    (run,) = asked_for(1)
    run.config.cluster = compose(["cluster=h100_16k"]).cluster
    (planned_run,) = plan_on_cluster([run], run.config.cluster).runs
    config = planned_config(run, planned_run)
    assert config_layout(config) == planned_run.layout
    assert planned_memory(run, config)["weights"] == pytest.approx(planned_run.memory["weights"].value)
    with pytest.raises(UserError, match="fits nowhere"):
        planned_config(run, planned(run.name, verdict=f"{run.name} fits nowhere"))


def test_a_layout_becomes_mesh_microbatches_and_remat():
    found = with_layout(small(), Layout(data=2, fsdp=4, tensor=2, expert=2, microbatch=2, remat=Remat.dots))
    assert found.mesh == MeshConfig(data=2, fsdp=4, tensor=2, expert=2)
    assert (found.compute.microbatches, found.compute.remat) == (384, Remat.dots)


@pytest.mark.parametrize(
    ("mesh", "most", "left", "batch"),
    [
        (MeshConfig(16, 8, 8, 4), 4096, MeshConfig(16, 8, 8, 4), 12_288),
        (MeshConfig(16, 8, 8, 4), 1024, MeshConfig(4, 8, 8, 4), 3072),
        (MeshConfig(16, 8, 8, 4), 128, MeshConfig(1, 4, 8, 4), 384),
        (MeshConfig(3, 8, 8, 4), 600, MeshConfig(1, 8, 8, 4), 4096),
    ],
)
def test_copies_are_cut_first_and_each_device_keeps_its_sequences(mesh, most, left, batch):
    config = dataclasses.replace(small(), mesh=mesh)
    part, told = smaller_mesh(config, most)
    assert (part.mesh, part.scale.batch) == (left, batch)
    assert bool(told) == (left != mesh)
    assert ("state" in told) == (left.fsdp < mesh.fsdp)


def test_a_mesh_that_cannot_be_cut_is_refused():
    config = dataclasses.replace(small(), mesh=MeshConfig(1, 1, 32, 256))
    with pytest.raises(UserError, match="tensor x expert x context x pipeline = 8192 is more than the 4096"):
        smaller_mesh(config, 4096)


@pytest.mark.parametrize("width", [80, 130])
def test_the_terminal_has_numbers_and_sentences(width, capsys):
    from rich.console import Console

    memory = {"weights": 2.0**30, "optimizer": 2.0**30, "gathered": 2.0**29}
    told = {"evidence": "compiled", "mesh": MeshConfig(data=8), "memory": memory, "memory_limit": 2.0**33}
    good = seen(
        peak_bytes=3 * 2**30, argument_bytes=1, dot_flops=5e12, executed_flops=4e12,
        collective_bytes={"all-gather": 3e9},
    )  # fmt: skip
    answers = [
        CompilerAnswer(runs=("a/mha/seed0",), target=Target.cpu, seen=good, **told),
        CompilerAnswer(runs=("a/gqa/seed0",), target=Target.cpu, error="cpu: it died", **told),
    ]
    print_sections([compiler_section(answers)], Console(width=width))
    text = capsys.readouterr().out
    words = " ".join(text.split())
    said = ["all-gather 3.00", "a/gqa, cpu: data 8; cpu: it died."]
    numbers = ["1.00 (2.00)", "3.00 (2.50)", "8.00", "5T (4T)"] if width > 100 else []
    assert [part for part in (*said, *numbers) if part not in words] == []
    assert all(len(line) <= width for line in text.splitlines())


def test_names_of_targets():
    assert parse_targets("cpu,abstract,cpu") == (Target.cpu, Target.abstract)
    with pytest.raises(UserError, match="--compile abstract,cpuu: 'cpuu' is unknown"):
        parse_targets("abstract,cpuu")
    with pytest.raises(UserError, match="'' is unknown"):
        parse_targets("")


def test_the_verb_says_what_compilers_say(made_up, capsys, monkeypatch):
    Compilers(monkeypatch)
    asked = ["plan", "experiment=colossus2", "roster=frontier", "member=1t_a", "cluster=h100_16k", "--json"]
    assert cli.main([*asked, "--compile", "abstract"]) == 0
    said = check_output(capsys.readouterr().out, "plan")
    (answer,) = said["layers"]
    assert answer["runs"] == ["1t/mha/seed0"]
    assert answer["seen"]["state_bytes"] == 2**30
    assert answer["evidence"].startswith("lowered over an abstract mesh")
    assert np.prod(list(answer["mesh"].values())) <= said["runs"][0]["devices"]
    assert cli.main([*asked, "--compile", "abstrakt"]) == 2
    assert "is unknown. Choose from abstract, cpu, cuda, tpu." in capsys.readouterr().err
    assert cli.main(asked) == 0
    assert "layers" not in json.loads(capsys.readouterr().out)
