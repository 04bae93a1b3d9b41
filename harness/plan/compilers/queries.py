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

from harness.aot.protocol import CompileRequest, CompileStats, Target
from harness.config.schema.cluster import MeshConfig
from harness.config.schema.run import Config
from harness.core import atomic_files
from harness.core.cache_dir import cache_dir
from harness.core.errors import UserError
from harness.core.hashing import hash_json, to_plain
from harness.plan.compilers.plan_environment import plan_python
from harness.plan.compilers.topology import compiler_topology
from harness.plan.compilers.trainable_mesh import fastest_trainable, planned_memory, smaller_mesh
from harness.plan.plan_types import DescribedRun, PlannedRun, SweepPlan
from harness.records.run.config_file import write_config
from harness.records.run.provenance import code_hash, code_of, package_versions

CONFIG_NODES = (
    "roster",
    "scale",
    "model",
    "finetune",
    "compute",
    "data",
    "optimizer",
    "loss",
    "mesh",
    "imports",
)
"""What of a config a lowered step depends on; of the cluster its platform alone."""
MAX_DEVICES = {Target.cpu: 2048, Target.cuda: 4096, Target.tpu: 4096}
"""Devices that a step is compiled for: more take no other program, and the CPU fails at 4,096."""
TIMEOUT_SECONDS = {Target.abstract: 120.0, Target.cpu: 900.0, Target.cuda: 900.0, Target.tpu: 900.0}
"""Seconds for one step. The largest that were tried took 3, 55, 28 and 110 CPU-seconds."""
OFFLINE_TARGETS = (Target.cuda, Target.tpu)
"""Compilers that are in the environment of `make plan-extras`."""
TARGET_EVIDENCE = {
    Target.abstract: "lowered over an abstract mesh: state by its shards, products by their shardings",
    Target.cpu: "compiled for simulated CPU devices: products, traffic; bytes untrusted, 16 bits become 32",
    Target.cuda: "compiled for GPUs that are not here: bytes, products and traffic; attention's scores are"
    " written out, which a GPU does in one kernel: its peak is too high",
    Target.tpu: "compiled for TPUs that are not here: bytes, products and traffic",
}


@dataclass(frozen=True, kw_only=True)
class CompilerAnswer:
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
    seen: CompileStats | None = None
    error: str = ""
    """Why there is nothing to see, in a sentence."""


@dataclass(frozen=True)
class _CompilerQuery:
    run: DescribedRun
    config: Config
    target: Target
    topology: str
    notes: tuple[str, ...]

    @property
    def key(self) -> str:
        """What the answer depends on, code and versions too."""
        content = to_plain(self.config)
        nodes = [content[name] for name in CONFIG_NODES]
        code = code_of(self.config), code_hash(Path(__file__).parents[2] / "aot")
        facts = self.run.facts
        model = facts.paths, facts.shape, facts.end_token
        platform = self.config.cluster.platform
        return hash_json(
            [
                self.target,
                self.topology,
                nodes,
                platform,
                model,
                code,
                package_versions(),
                _environment_mtime(),
            ]
        )


def _environment_mtime() -> int:
    """When the environment of other machines' compilers was made; 0: it was not."""
    python = plan_python()
    return python.lstat().st_mtime_ns if python else 0


def parse_targets(names: str) -> tuple[Target, ...]:
    """Of a list with commas. Raises UserError for one that is none."""
    valid = {target.value: target for target in Target}
    for name in names.split(","):
        if name not in valid:
            raise UserError(f"--compile {names}: '{name}' is none of {', '.join(valid)}")
    return tuple(dict.fromkeys(valid[name] for name in names.split(",")))


def ask_compilers(
    runs: Sequence[DescribedRun], sheet: SweepPlan, targets: Sequence[Target]
) -> tuple[CompilerAnswer, ...]:
    """One answer for each target and step. Where none is found, its sentence: no target stops another."""
    return tuple(answer for target in targets for answer in _ask_target(runs, sheet, target))


def _ask_target(runs: Sequence[DescribedRun], sheet: SweepPlan, target: Target) -> list[CompilerAnswer]:
    planned = {run.name: run for run in sheet.runs}
    queries: dict[str, tuple[_CompilerQuery, list[str]]] = {}
    run_names: dict[str, list[str]] = {}
    for run in runs:
        try:
            question = _query(run, planned[run.name], target)
            queries.setdefault(question.key, (question, []))[1].append(run.name)
        except UserError as error:
            run_names.setdefault(str(error), []).append(run.name)
    results = _cached_or_compiled({key: question for key, (question, _) in queries.items()}, target)
    answers = [_answer(question, names, results[key]) for key, (question, names) in queries.items()]
    refusals = [_refusal(names, target, error) for error, names in run_names.items()]
    limits = {run.name: run.memory_limit for run in sheet.runs}
    return [dataclasses.replace(answer, memory_limit=limits[answer.runs[0]]) for answer in answers] + refusals


def _query(run: DescribedRun, planned: PlannedRun, target: Target) -> _CompilerQuery:
    """Raises UserError where there is nothing to ask."""
    config, note = smaller_mesh(fastest_trainable(run, planned), MAX_DEVICES.get(target, sys.maxsize))
    topology = ""
    if target in OFFLINE_TARGETS:
        if planned.kind not in config.cluster.kinds:
            raise UserError(
                f"target={target.value}: cluster={config.cluster.name} has no chips to compile for"
            )
        topology = compiler_topology(target, config.cluster.kinds[planned.kind], config.mesh.devices)
    return _CompilerQuery(run, config, target, topology, (note,) if note else ())


def _answer(query: _CompilerQuery, names: Sequence[str], stats: CompileStats | str) -> CompilerAnswer:
    answer = CompilerAnswer(
        runs=tuple(names),
        target=query.target,
        evidence=TARGET_EVIDENCE[query.target],
        mesh=query.config.mesh,
        notes=query.notes,
        memory=planned_memory(query.run, query.config),
    )
    outcome = {"error": stats} if isinstance(stats, str) else {"seen": stats}
    return dataclasses.replace(answer, **outcome)


def _refusal(names: Sequence[str], target: Target, error: str) -> CompilerAnswer:
    return CompilerAnswer(
        runs=tuple(names), target=target, evidence=TARGET_EVIDENCE[target], mesh=None, error=error
    )


def _cached_or_compiled(
    queries: Mapping[str, _CompilerQuery], target: Target
) -> dict[str, CompileStats | str]:
    """By key, what was seen or why nothing was. What was seen is remembered; what failed is tried again."""
    cached = {key: seen for key in queries if (seen := _read_cache(key))}
    missing = [key for key in queries if key not in cached]
    answers = _compile_all([queries[key] for key in missing], target)
    for key, answer in zip(missing, answers, strict=True):
        if isinstance(answer, CompileStats):
            atomic_files.write_json(_cache_path(key), to_plain(answer))
    return cached | dict(zip(missing, answers, strict=True))


def _cache_path(key: str) -> Path:
    return cache_dir("layers") / f"{key}.json"


def _read_cache(key: str) -> CompileStats | None:
    content = atomic_files.read_json(_cache_path(key))
    return _parse_stats(content) if isinstance(content, dict) else None


def _parse_stats(content: dict[str, Any]) -> CompileStats | None:
    """None where it is of another version."""
    try:
        return CompileStats(**{**content, "target": Target(content["target"])})
    except (TypeError, KeyError, ValueError):
        return None


def _compile_all(queries: Sequence[_CompilerQuery], target: Target) -> list[CompileStats | str]:
    """Of each config in order. A process compiles one step, or lowers many; where it dies or is too slow, the
    step that it was at is to blame, and the next process goes on behind it."""
    python = plan_python() if target in OFFLINE_TARGETS else Path(sys.executable)
    if python is None:
        return [f"{target.value}: its compiler is not here; run `make plan-extras`"] * len(queries)
    batch_size = len(queries) if target is Target.abstract else 1
    answers: list[CompileStats | str] = []
    while remaining := queries[len(answers) :]:
        answers += _compile_in_process(python, remaining[:batch_size])
    return answers


def _compile_in_process(python: Path, queries: Sequence[_CompilerQuery]) -> list[CompileStats | str]:
    """At least one answer. All questions are for one target and topology."""
    target = queries[0].target
    with tempfile.TemporaryDirectory(prefix="ab-harness-") as name:
        command = [str(python), "-m", "harness.aot", str(_write_request(Path(name), queries))]
        output, trouble = _run_compiler(command, TIMEOUT_SECONDS[target] * len(queries))
    answers = [_parse_line(line) for line in output.splitlines() if line.startswith("{")]
    return answers if len(answers) == len(queries) else [*answers, f"{target.value}: {trouble}"]


def _write_request(folder: Path, queries: Sequence[_CompilerQuery]) -> Path:
    paths = [folder / f"{index}.yaml" for index in range(len(queries))]
    for path, question in zip(paths, queries, strict=True):
        write_config(path, question.config)
    first, request = queries[0], folder / "request.json"
    atomic_files.write_json(
        request, to_plain(CompileRequest(first.target, (*map(str, paths),), first.topology))
    )
    return request


def _run_compiler(command: Sequence[str], timeout: float) -> tuple[str, str]:
    """What a process printed, and why it did not print more."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("JAX_", "XLA_"))}
    try:
        process = subprocess.run(command, env=environment, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as late:
        return (late.stdout or b"").decode(), f"no answer within {timeout:.0f} s, so it was ended"
    last = process.stderr.decode(errors="replace").strip().rpartition("\n")[2] or "it said nothing"
    how = (
        signal.Signals(-process.returncode).name if process.returncode < 0 else f"status {process.returncode}"
    )
    return process.stdout.decode(), f"the compiler's process ended with {how}: {last[:400]}"


def _parse_line(line: str) -> CompileStats | str:
    content = json.loads(line)
    return (
        content["error"]
        if "error" in content
        else CompileStats(**{**content, "target": Target(content["target"])})
    )
