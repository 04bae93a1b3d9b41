"""Compilers' answers on a plan's steps: one process per compiler, with a cache of its answers."""

from __future__ import annotations

import functools
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
from harness.core.cache.cache_entries import CacheEntry
from harness.core.errors import UserError
from harness.core.hashing import to_plain
from harness.plan.compilers.offline_compilers import compiler_topology, plan_python
from harness.plan.compilers.trainable_mesh import planned_config, planned_memory, smaller_mesh
from harness.plan.plan_types import DescribedRun, PlannedRun, SweepPlan
from harness.records.run.config_file import write_config
from harness.records.run.provenance import code_hash, code_hash_of, package_versions

CONFIG_NODES = (
    "roster", "scale", "model", "finetune", "compute", "data", "optimizer", "loss", "mesh", "imports",
)  # fmt: skip
"""Nodes of a config that a lowered step depends on; of the cluster it depends on the platform alone."""
MAX_DEVICES = {Target.cpu: 2048, Target.cuda: 4096, Target.tpu: 4096}
"""Number of devices that a step is compiled for: more take no other program, and the CPU fails at 4,096."""
TIMEOUT_SECONDS = {Target.abstract: 120.0, Target.cpu: 900.0, Target.cuda: 900.0, Target.tpu: 900.0}
"""Seconds for one step. The largest that were tried took 3, 55, 28 and 110 CPU-seconds."""
OFFLINE_TARGETS = (Target.cuda, Target.tpu)
"""Targets whose compilers are in the environment of `make plan-extras`."""
TARGET_EVIDENCE = {
    Target.abstract: "lowered over an abstract mesh: state by its shards, products by their shardings",
    Target.cpu: "compiled for simulated CPU devices: products, traffic; bytes untrusted, 16 bits become 32",
    Target.cuda: "compiled for GPUs that are not here: bytes without the workspaces of kernels, products and"
    " traffic",
    Target.tpu: "compiled for TPUs that are not here: bytes, products and traffic",
}
"""Evidence of each target's numbers."""


@dataclass(frozen=True, kw_only=True)
class CompilerAnswer:
    """Answer of one target on one step."""

    runs: tuple[str, ...]
    """Names of the runs that share the step: they differ in nothing that it depends on."""
    target: Target
    evidence: str
    mesh: MeshConfig | None
    """Mesh that was compiled; None: no trainable mesh fits."""
    notes: tuple[str, ...] = ()
    memory: dict[str, float] = field(default_factory=dict)
    """Bytes of one device by part on that mesh, in closed form."""
    memory_limit: float | None = None
    """Bytes of a device that a plan may use; None: not known."""
    seen: CompileStats | None = None
    """Statistics of the lowered or compiled step; None: see `error`."""
    error: str = ""
    """Reason for the missing statistics, in a sentence."""


@dataclass(frozen=True)
class _CompilerQuery:
    run: DescribedRun
    config: Config
    target: Target
    topology: str
    notes: tuple[str, ...]

    @functools.cached_property
    def entry(self) -> CacheEntry:
        """Place of the answer in the cache, by all that it depends on, code and versions too."""
        content, facts, python = to_plain(self.config), self.run.facts, plan_python()
        nodes = [content[name] for name in CONFIG_NODES]
        code = code_hash_of(self.config), code_hash(Path(__file__).parents[2] / "aot")
        model = facts.paths, facts.shape, facts.end_token
        platform = self.config.cluster.platform
        compilers_mtime = python.lstat().st_mtime_ns if python else 0
        versions = package_versions(), compilers_mtime
        inputs = [self.target, self.topology, nodes, platform, model, code, *versions]
        return CacheEntry("layers", self.target.value, to_plain(inputs))

    @property
    def key(self) -> str:
        """Name of the entry: equal queries have equal keys."""
        return self.entry.path.name


def parse_targets(names: str) -> tuple[Target, ...]:
    """Return the targets of a list with commas. Raises UserError for an unknown one."""
    valid = {target.value: target for target in Target}
    for name in names.split(","):
        if name not in valid:
            raise UserError(f"--compile {names}: '{name}' is unknown. Choose from {', '.join(valid)}.")
    return tuple(dict.fromkeys(valid[name] for name in names.split(",")))


def ask_compilers(
    runs: Sequence[DescribedRun], plan: SweepPlan, targets: Sequence[Target]
) -> tuple[CompilerAnswer, ...]:
    """Return an answer for each target and step, with a sentence if it fails: no target stops another."""
    return tuple(answer for target in targets for answer in _ask_target(runs, plan, target))


def _ask_target(runs: Sequence[DescribedRun], plan: SweepPlan, target: Target) -> list[CompilerAnswer]:
    planned = {run.name: run for run in plan.runs}
    queries: dict[str, tuple[_CompilerQuery, list[str]]] = {}
    refusals: dict[str, list[str]] = {}
    for run in runs:
        try:
            query = _query(run, planned[run.name], target)
            queries.setdefault(query.key, (query, []))[1].append(run.name)
        except UserError as error:
            refusals.setdefault(str(error), []).append(run.name)
    results = _cached_or_compiled({key: query for key, (query, _) in queries.items()}, target)
    answers = [_answer(query, names, results[key], planned) for key, (query, names) in queries.items()]
    for error, names in refusals.items():
        run_names, evidence = tuple(names), TARGET_EVIDENCE[target]
        answers.append(
            CompilerAnswer(runs=run_names, target=target, evidence=evidence, mesh=None, error=error)
        )
    return answers


def _query(run: DescribedRun, planned: PlannedRun, target: Target) -> _CompilerQuery:
    """Return the query of a run. Raises UserError if there is no step to compile."""
    config, note = smaller_mesh(planned_config(run, planned), MAX_DEVICES.get(target, sys.maxsize))
    topology = ""
    if target in OFFLINE_TARGETS:
        if planned.kind not in config.cluster.kinds:
            cluster = config.cluster.name
            raise UserError(f"target={target.value}: cluster={cluster} has no chips to compile for")
        topology = compiler_topology(target, config.cluster.kinds[planned.kind], config.mesh.devices)
    return _CompilerQuery(run, config, target, topology, (note,) if note else ())


def _answer(
    query: _CompilerQuery, names: Sequence[str], result: CompileStats | str, planned: Mapping[str, PlannedRun]
) -> CompilerAnswer:
    return CompilerAnswer(
        runs=tuple(names),
        target=query.target,
        evidence=TARGET_EVIDENCE[query.target],
        mesh=query.config.mesh,
        notes=query.notes,
        memory=planned_memory(query.run, query.config),
        memory_limit=planned[names[0]].memory_limit,
        seen=None if isinstance(result, str) else result,
        error=result if isinstance(result, str) else "",
    )


def _cached_or_compiled(
    queries: Mapping[str, _CompilerQuery], target: Target
) -> dict[str, CompileStats | str]:
    """Return statistics or an error by key. Statistics are cached; what failed is tried again."""
    cached = {key: stats for key, query in queries.items() if (stats := _read_cache(query.entry))}
    missing = [key for key in queries if key not in cached]
    answers = _compile_all([queries[key] for key in missing], target)
    for key, answer in zip(missing, answers, strict=True):
        if isinstance(answer, CompileStats):
            queries[key].entry.write_json(to_plain(answer))
    return cached | dict(zip(missing, answers, strict=True))


def _read_cache(entry: CacheEntry) -> CompileStats | None:
    """Return cached statistics; None if there are none, or they are of another version."""
    content = entry.read_json()
    try:
        return _to_stats(content) if isinstance(content, dict) else None
    except (TypeError, KeyError, ValueError):
        return None


def _to_stats(content: dict[str, Any]) -> CompileStats:
    return CompileStats(**{**content, "target": Target(content["target"])})


def _compile_all(queries: Sequence[_CompilerQuery], target: Target) -> list[CompileStats | str]:
    """Return the answer to each query in order. A process compiles one step, or lowers many; if it dies or
    times out, the step that it was at gets the error, and the next process goes on behind it."""
    python = plan_python() if target in OFFLINE_TARGETS else Path(sys.executable)
    if python is None:
        return [f"{target.value}: its compiler is not here; run `make plan-extras`"] * len(queries)
    batch_size = len(queries) if target is Target.abstract else 1
    answers: list[CompileStats | str] = []
    while remaining := queries[len(answers) :]:
        answers += _compile_in_process(python, remaining[:batch_size])
    return answers


def _compile_in_process(python: Path, queries: Sequence[_CompilerQuery]) -> list[CompileStats | str]:
    """Return at least one answer. All queries are for one target and topology."""
    target = queries[0].target
    with tempfile.TemporaryDirectory(prefix="ab-harness-") as folder:
        paths = [f"{folder}/{index}.yaml" for index in range(len(queries))]
        for path, query in zip(paths, queries, strict=True):
            write_config(Path(path), query.config)
        request = CompileRequest(target, tuple(paths), queries[0].topology)
        atomic_files.write_json(Path(folder, "request.json"), to_plain(request))
        command = [str(python), "-P", "-m", "harness.aot", f"{folder}/request.json"]
        output, trouble = _run_compiler(command, TIMEOUT_SECONDS[target] * len(queries))
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    answers = [content["error"] if "error" in content else _to_stats(content) for content in lines]
    return answers if len(answers) == len(queries) else [*answers, f"{target.value}: {trouble}"]


def _run_compiler(command: Sequence[str], timeout: float) -> tuple[str, str]:
    """Return the output of a process, and why it did not print more."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("JAX_", "XLA_"))}
    try:
        process = subprocess.run(command, env=environment, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as late:
        return (late.stdout or b"").decode(), f"no answer within {timeout:.0f} s, so it was ended"
    last, status = process.stderr.decode(errors="replace").strip().rpartition("\n")[2], process.returncode
    reason = signal.Signals(-status).name if status < 0 else f"status {status}"
    trouble = f"the compiler's process ended with {reason}: {last[:400] or 'it printed no error'}"
    return process.stdout.decode(), trouble
