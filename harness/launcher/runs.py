"""What a sweep consists of: runs, and the blocks that they are compared in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.config.pair_check import check_block, identity_difference
from harness.config.run_identity import identity
from harness.config.schema.cluster import MeshConfig
from harness.config.schema.engine import Isolation
from harness.config.schema.run import Config
from harness.core.errors import UserError
from harness.core.hashing import is_covered_by
from harness.records.paths import RunDir, SweepDir
from harness.records.run.provenance import Facts
from harness.records.run.status import read_status


@dataclass(frozen=True)
class Run:
    """One training: its config, what `describe` said of it, and where it lies."""

    config: Config
    facts: Facts
    dir: RunDir

    @property
    def name(self) -> str:
        """`<scale>/<variant>/seed<k>`, the path below the sweep."""
        return "/".join(self.dir.path.parts[-3:])

    @property
    def block(self) -> str:
        return f"{self.config.scale.name}/seed{self.config.seed}"

    @property
    def variant(self) -> str:
        return self.config.variant.name

    @property
    def tokens(self) -> int:
        return self.facts.steps * self.facts.tokens_per_step

    @property
    def flops(self) -> float:
        """Model FLOPs of the whole run."""
        return self.facts.flops_per_token * self.tokens

    @property
    def cost(self) -> float:
        """What it occupies the machine with: FLOPs as executed."""
        return self.facts.executed_flops_per_token * self.tokens

    @property
    def devices(self) -> int:
        return self.config.mesh.devices

    @property
    def ended(self) -> bool:
        """Whether its status file says that it has an outcome; read from disk at each call."""
        return read_status(self.dir).state.ended

    def on_mesh(self, mesh: MeshConfig) -> Run:
        """Return the run with `mesh` in its config."""
        return dataclasses.replace(self, config=dataclasses.replace(self.config, mesh=mesh))


@dataclass(frozen=True)
class Block:
    """The runs that share everything but the variant, in the order of their lanes."""

    name: str
    runs: tuple[Run, ...]

    @property
    def scale(self) -> str:
        return self.runs[0].config.scale.name

    @property
    def cost(self) -> float:
        return sum(run.cost for run in self.runs)


def sweep_directory(configs: Sequence[Config]) -> SweepDir:
    """The directory of a sweep. Raises UserError where the runs belong to several."""
    paths = {Path(config.runs) / config.experiment_name for config in configs}
    if len(paths) > 1:
        listed = ", ".join(sorted(map(str, paths)))
        raise UserError(f"experiment_name: one command trains one experiment, these are {listed}")
    return SweepDir(paths.pop())


def check_trainable(configs: Sequence[Config]) -> None:
    """Raises UserError for sizes that no machine here could train, whose data are not here either, and for
    machines that are described to plan with."""
    for config in configs:
        if config.cluster.kinds:
            raise UserError(
                f"cluster={config.cluster.name}: this machine is planned with, not trained on; cluster=local "
                f"cluster.platform={config.cluster.platform} trains on the devices that are here"
            )
        if config.roster.planned:
            raise UserError(
                f"roster={config.roster.name}: these sizes are planned, not trained; `harness plan` says "
                "what they would cost, and roster=replica trains a millionth of them"
            )


def run_directory(sweep: SweepDir, config: Config) -> RunDir:
    for key, name in (("scale.name", config.scale.name), ("variant.name", config.variant.name)):
        if not name or "/" in name or name.startswith("."):
            raise UserError(f"{key}={name}: it names a folder, so it has no '/' and no leading dot")
    return sweep.run(config.scale.name, config.variant.name, config.seed)


def check_distinct(sweep: SweepDir, configs: Iterable[Config]) -> None:
    """Raises UserError where two runs are the same, or would share a directory."""
    seen: dict[Path, Config] = {}
    for config in configs:
        path = run_directory(sweep, config).path
        if path not in seen:
            seen[path] = config
        elif identity(seen[path]) == identity(config):
            raise UserError(f"{path} is asked for twice: take the repeated value out of the sweep")
        else:
            found = identity_difference(seen[path], config)
            raise UserError(
                f"{path} would hold two runs that differ in {found}; a swept value belongs into a variant "
                "of its own (conf/variant), a scale, or the seed"
            )


def check_processes(blocks: Sequence[Block]) -> None:
    """Raises UserError where the devices of a run cannot be shared out among its processes."""
    for run in (run for block in blocks for run in block.runs):
        count = run.config.engine.processes
        if count < 1 or run.devices % count:
            raise UserError(
                f"engine.processes={count}: the mesh of {run.name}, of size {run.devices}, cannot be "
                "shared out evenly among so many; give a number that divides it"
            )
        if count > 1 and run.config.engine.name == "local" and run.config.cluster.platform == "tpu":
            raise UserError(
                f"engine.processes={count} and cluster.platform=tpu: one process holds all chips of a host; "
                "leave engine.processes out, or take engine=ray for a slice of several hosts"
            )
        if count > 1 and run.config.engine.isolation is Isolation.all:
            raise UserError(
                f"engine.processes={count} and engine.isolation=all: processes train one run together, or "
                "one trains all of them; leave one of the two out"
            )


def make_blocks(runs: Sequence[Run]) -> list[Block]:
    """Blocks in order of appearance. Raises UserError for a pair that is not fair.

    Which variant gets which lane alternates over the blocks of a scale, so that a lane's
    peculiarity does not become a variant's.
    """
    by_block: dict[str, list[Run]] = {}
    for run in runs:
        by_block.setdefault(run.block, []).append(run)
    turns: dict[str, int] = {}
    blocks = []
    for name, members in by_block.items():
        check_block([run.config for run in members], name)
        _check_facts(members, name)
        turn = turns.setdefault(members[0].config.scale.name, 0) % len(members)
        turns[members[0].config.scale.name] += 1
        blocks.append(Block(name, (*members[turn:], *members[:turn])))
    return blocks


def select_runs(blocks: Sequence[Block], condition: Callable[[Run], bool]) -> list[Block]:
    """Return the blocks with only those of their runs that meet `condition`, without empty ones."""
    selected = [Block(block.name, tuple(run for run in block.runs if condition(run))) for block in blocks]
    return [block for block in selected if block.runs]


_SHARED: Mapping[str, str] = {
    "steps": "scale",
    "tokens_per_step": "scale",
    "data_fingerprint": "data",
    "eval_fingerprint": "data",
    "base": "finetune.parent",
}
"""Facts that are equal inside a block, and the node whose declaration excuses them."""


def _check_facts(members: Sequence[Run], where: str) -> None:
    control = members[0]
    for run in members[1:]:
        touched = [*control.config.variant.touches, *run.config.variant.touches]
        for fact, node in _SHARED.items():
            if not is_covered_by(node, touched) and getattr(run.facts, fact) != getattr(control.facts, fact):
                raise UserError(
                    f"{where}: '{run.variant}' and '{control.variant}' have different {fact} "
                    f"({getattr(run.facts, fact)} against {getattr(control.facts, fact)}), and none declares "
                    f"'{node}' in variant.touches"
                )
