"""What compilers say of the runs of a plan: each asked in a process of its own, and remembered."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.aot.protocol import Request, Seen, Target
from harness.config.schema.cluster import MeshConfig
from harness.config.schema.run import Config
from harness.core import atomic_files
from harness.core.cache_dir import cache_dir
from harness.core.errors import UserError
from harness.core.hashing import digest, plain
from harness.plan.compilers.environment import plan_python
from harness.plan.compilers.topology import topology_of
from harness.plan.compilers.trainable_mesh import closed_form, cut, on_mesh
from harness.plan.plan_types import Described, PlannedRun, Sheet
from harness.records.run.config_file import write_config
from harness.records.run.provenance import code_hash, code_of, package_versions

NODES = ("ladder", "scale", "model", "finetune", "compute", "data", "optimizer", "mesh", "imports")
"""What of a config a lowered step depends on; of the cluster its platform alone."""
MOST = {Target.cpu: 2048, Target.cuda: 4096, Target.tpu: 4096}
"""Devices that a step is compiled for: more take no other program, and the CPU fails at 4,096."""
PATIENCE = {Target.abstract: 120.0, Target.cpu: 900.0, Target.cuda: 900.0, Target.tpu: 900.0}
"""Seconds for one step. The largest that were tried took 3, 55, 28 and 110 CPU-seconds."""
ELSEWHERE = (Target.cuda, Target.tpu)
"""Compilers that are in the environment of `make plan-extras`."""
EVIDENCE = {
    Target.abstract: "lowered over an abstract mesh: state by its shards, products by their shardings",
    Target.cpu: "compiled for simulated CPU devices: products, traffic; bytes untrusted, 16 bits become 32",
    Target.cuda: "compiled for GPUs that are not here: bytes, products and traffic; attention's scores are"
    " written out, which a GPU does in one kernel: its peak is too high",
    Target.tpu: "compiled for TPUs that are not here: bytes, products and traffic",
}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Of one target, on one step."""

    runs: tuple[str, ...]
    """That share it: they differ in nothing that it depends on."""
    target: Target
    evidence: str
    mesh: MeshConfig | None
    """That was lowered; None: there is none that fits."""
    notes: tuple[str, ...] = ()
    memory: dict[str, float] = field(default_factory=dict)
    """Bytes of one device by part, on that mesh, in the plan's closed form."""
    memory_limit: float | None = None
    """Bytes of a device that a plan may use; None: not known."""
    seen: Seen | None = None
    error: str = ""
    """Why there is nothing to see, in a sentence."""


@dataclass(frozen=True)
class _Question:
    run: Described
    config: Config
    target: Target
    topology: str
    notes: tuple[str, ...]

    @property
    def key(self) -> str:
        """What the answer depends on, code and versions too."""
        content = plain(self.config)
        nodes = [content[name] for name in NODES]
        code = code_of(self.config), code_hash(Path(__file__).parents[2] / "aot")
        facts = self.run.facts
        model = facts.paths, facts.shape, facts.end_token
        platform = self.config.cluster.platform
        return digest([self.target, self.topology, nodes, platform, model, code, package_versions(), _made()])


def _made() -> int:
    """When the environment of other machines' compilers was made; 0: it was not."""
    python = plan_python()
    return python.lstat().st_mtime_ns if python else 0


def targets_of(names: str) -> tuple[Target, ...]:
    """Of a list with commas. Raises UserError for one that is none."""
    valid = {target.value: target for target in Target}
    for name in names.split(","):
        if name not in valid:
            raise UserError(f"--layers {names}: '{name}' is none of {', '.join(valid)}")
    return tuple(dict.fromkeys(valid[name] for name in names.split(",")))


def ask_layers(runs: Sequence[Described], sheet: Sheet, targets: Sequence[Target]) -> tuple[Answer, ...]:
    """One answer for each target and step. Where none is found, its sentence: no target stops another."""
    return tuple(answer for target in targets for answer in _of_target(runs, sheet, target))


def _of_target(runs: Sequence[Described], sheet: Sheet, target: Target) -> list[Answer]:
    planned = {run.name: run for run in sheet.runs}
    asked: dict[str, tuple[_Question, list[str]]] = {}
    refused: dict[str, list[str]] = {}
    for run in runs:
        try:
            question = _question(run, planned[run.name], target)
            asked.setdefault(question.key, (question, []))[1].append(run.name)
        except UserError as error:
            refused.setdefault(str(error), []).append(run.name)
    found = _found({key: question for key, (question, _) in asked.items()}, target)
    answers = [_answer(question, names, found[key]) for key, (question, names) in asked.items()]
    refusals = [_refusal(names, target, error) for error, names in refused.items()]
    limits = {run.name: run.memory_limit for run in sheet.runs}
    return [dataclasses.replace(each, memory_limit=limits[each.runs[0]]) for each in answers] + refusals


def _question(run: Described, planned: PlannedRun, target: Target) -> _Question:
    """Raises UserError where there is nothing to ask."""
    config, told = cut(on_mesh(run, planned), MOST.get(target, sys.maxsize))
    topology = ""
    if target in ELSEWHERE:
        if planned.kind not in config.cluster.kinds:
            raise UserError(
                f"target={target.value}: cluster={config.cluster.name} has no chips to compile for"
            )
        topology = topology_of(target, config.cluster.kinds[planned.kind], config.mesh.devices)
    return _Question(run, config, target, topology, (told,) if told else ())


def _answer(question: _Question, names: Sequence[str], found: Seen | str) -> Answer:
    answer = Answer(
        runs=tuple(names),
        target=question.target,
        evidence=EVIDENCE[question.target],
        mesh=question.config.mesh,
        notes=question.notes,
        memory=closed_form(question.run, question.config),
    )
    told = {"error": found} if isinstance(found, str) else {"seen": found}
    return dataclasses.replace(answer, **told)


def _refusal(names: Sequence[str], target: Target, error: str) -> Answer:
    return Answer(runs=tuple(names), target=target, evidence=EVIDENCE[target], mesh=None, error=error)


def _found(asked: Mapping[str, _Question], target: Target) -> dict[str, Seen | str]:
    """By key, what was seen or why nothing was. What was seen is remembered; what failed is tried again."""
    known = {key: seen for key in asked if (seen := _remembered(key))}
    missing = [key for key in asked if key not in known]
    answers = _answers([asked[key] for key in missing], target)
    for key, answer in zip(missing, answers, strict=True):
        if isinstance(answer, Seen):
            atomic_files.write_json(_path(key), plain(answer))
    return known | dict(zip(missing, answers, strict=True))


def _path(key: str) -> Path:
    return cache_dir("layers") / f"{key}.json"


def _remembered(key: str) -> Seen | None:
    content = atomic_files.read_json(_path(key))
    return _seen(content) if isinstance(content, dict) else None


def _seen(content: dict[str, Any]) -> Seen | None:
    """None where it is of another version."""
    try:
        return Seen(**{**content, "target": Target(content["target"])})
    except (TypeError, KeyError, ValueError):
        return None


def _answers(questions: Sequence[_Question], target: Target) -> list[Seen | str]:
    """Of each config in order. A process compiles one step, or lowers many; where it dies or is too slow, the
    step that it was at is to blame, and the next process goes on behind it."""
    python = plan_python() if target in ELSEWHERE else Path(sys.executable)
    if python is None:
        return [f"{target.value}: its compiler is not here; run `make plan-extras`"] * len(questions)
    most = len(questions) if target is Target.abstract else 1
    answers: list[Seen | str] = []
    while rest := questions[len(answers) :]:
        answers += _one_process(python, rest[:most])
    return answers


def _one_process(python: Path, questions: Sequence[_Question]) -> list[Seen | str]:
    """At least one answer. All questions are for one target and topology."""
    target = questions[0].target
    with tempfile.TemporaryDirectory(prefix="ab-harness-") as name:
        command = [str(python), "-m", "harness.aot", str(_written(Path(name), questions))]
        said, trouble = _called(command, PATIENCE[target] * len(questions))
    answers = [_read(line) for line in said.splitlines() if line.startswith("{")]
    return answers if len(answers) == len(questions) else [*answers, f"{target.value}: {trouble}"]


def _written(folder: Path, questions: Sequence[_Question]) -> Path:
    paths = [folder / f"{index}.yaml" for index in range(len(questions))]
    for path, question in zip(paths, questions, strict=True):
        write_config(path, question.config)
    first, request = questions[0], folder / "request.json"
    atomic_files.write_json(request, plain(Request(first.target, (*map(str, paths),), first.topology)))
    return request


def _called(command: Sequence[str], patience: float) -> tuple[str, str]:
    """What a process printed, and why it did not print more."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("JAX_", "XLA_"))}
    try:
        done = subprocess.run(command, env=own, capture_output=True, timeout=patience, check=False)
    except subprocess.TimeoutExpired as late:
        return (late.stdout or b"").decode(), f"no answer within {patience:.0f} s, so it was ended"
    last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2] or "it said nothing"
    how = signal.Signals(-done.returncode).name if done.returncode < 0 else f"status {done.returncode}"
    return done.stdout.decode(), f"the compiler's process ended with {how}: {last[:400]}"


def _read(line: str) -> Seen | str:
    content = json.loads(line)
    return (
        content["error"] if "error" in content else Seen(**{**content, "target": Target(content["target"])})
    )
