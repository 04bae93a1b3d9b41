"""Runs of a sweep, and the blocks in which they are compared."""

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
from harness.core.paths import check_folder_name
from harness.records.paths import RunDir, SweepDir
from harness.records.run.provenance import Facts
from harness.records.run.status import read_status


@dataclass(frozen=True)
class Run:
    """Training run: its config, its described facts, and its directory."""

    config: Config
    facts: Facts
    dir: RunDir

    @property
    def name(self) -> str:
        """Path below the sweep: `<scale>/<variant>/seed<k>`."""
        return "/".join(self.dir.path.parts[-3:])

    @property
    def block(self) -> str:
        """Name of its block: `<scale>/seed<k>`."""
        return f"{self.config.scale.name}/seed{self.config.seed}"

    @property
    def variant(self) -> str:
        """Name of its variant."""
        return self.config.variant.name

    @property
    def tokens(self) -> int:
        """Tokens of all its steps."""
        return self.facts.steps * self.facts.tokens_per_step

    @property
    def flops(self) -> float:
        """Model FLOPs of the whole run."""
        return self.facts.flops_per_token * self.tokens

    @property
    def cost(self) -> float:
        """FLOPs as executed, which is what occupies the machine."""
        return self.facts.executed_flops_per_token * self.tokens

    @property
    def devices(self) -> int:
        """Devices of its mesh."""
        return self.config.mesh.devices

    @property
    def ended(self) -> bool:
        """True if its status file, which is read at each call, has an outcome."""
        return read_status(self.dir).state.ended

    def on_mesh(self, mesh: MeshConfig) -> Run:
        """Return the run with `mesh` in its config."""
        return dataclasses.replace(self, config=dataclasses.replace(self.config, mesh=mesh))


@dataclass(frozen=True)
class Block:
    """Runs that share everything but the variant, in the order of their lanes."""

    name: str
    runs: tuple[Run, ...]

    @property
    def scale(self) -> str:
        """Name of the scale that its runs share."""
        return self.runs[0].config.scale.name


def sweep_dir(configs: Sequence[Config]) -> SweepDir:
    """Return the directory of a sweep. Raises UserError if the runs belong to several sweeps."""
    paths = {Path(config.runs) / config.experiment_name for config in configs}
    if len(paths) > 1:
        names = ", ".join(sorted(map(str, paths)))
        raise UserError(
            f"experiment_name: one command trains one experiment, but this one names {names}. "
            "Start a command for each."
        )
    return SweepDir(paths.pop())


def check_trainable(configs: Sequence[Config]) -> None:
    """Raise UserError for a cluster or a roster that exists only to plan with, and for processes that would
    share the chips of a host."""
    for config in configs:
        count = config.engine.processes
        if count > 1 and config.engine.name == "local" and config.cluster.platform == "tpu":
            raise UserError(
                f"engine.processes={count} and cluster.platform=tpu: one process holds all chips of a host. "
                "Remove engine.processes, or use engine=ray for a slice of several hosts."
            )
        if len(config.cluster.kinds) > 1:
            raise UserError(
                f"cluster={config.cluster.name} has {len(config.cluster.kinds)} kinds of chips, and a sweep "
                "trains on one. Describe that kind alone, as conf/cluster/h100x8.yaml does."
            )
        if config.roster.planned:
            raise UserError(
                f"roster={config.roster.name} can be planned, but not trained. `harness plan` computes its "
                "cost; roster=replica trains a millionth of these sizes."
            )


def run_dir(sweep: SweepDir, config: Config) -> RunDir:
    """Return the directory of a run. Raises UserError for a name that cannot be a folder."""
    check_folder_name("scale.name", config.scale.name)
    check_folder_name("variant.name", config.variant.name)
    return sweep.run(config.scale.name, config.variant.name, config.seed)


def check_distinct(sweep: SweepDir, configs: Iterable[Config]) -> None:
    """Raise UserError if two runs are equal, or would share a directory."""
    by_path: dict[Path, Config] = {}
    for config in configs:
        path = run_dir(sweep, config).path
        if path not in by_path:
            by_path[path] = config
        elif identity(by_path[path]) == identity(config):
            raise UserError(f"{path} appears twice in the sweep. Remove the repeated value.")
        else:
            raise UserError(
                f"{path} would hold two runs that differ in {identity_difference(by_path[path], config)}. "
                "Put a swept value into a variant of its own (conf/variant), a scale, or the seed."
            )


def check_processes(blocks: Sequence[Block]) -> None:
    """Raise UserError if the processes of a run cannot share its devices evenly."""
    for run in (run for block in blocks for run in block.runs):
        count = run.config.engine.processes
        if count < 1 or run.devices % count:
            raise UserError(
                f"engine.processes={count} does not divide the mesh of {run.name}, which has {run.devices} "
                "devices. Choose a number that does."
            )
        if count > 1 and run.config.engine.isolation is Isolation.all:
            raise UserError(
                f"engine.processes={count} and engine.isolation=all: several processes train one run, or one "
                "process trains all of them. Remove one of the two."
            )


def make_blocks(runs: Sequence[Run]) -> list[Block]:
    """Return the blocks in order of appearance. Raises UserError for a block whose runs differ unfairly. The
    lanes of the variants rotate over the blocks of a scale, so that no variant always gets the same one."""
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
    parts = [Block(block.name, tuple(run for run in block.runs if condition(run))) for block in blocks]
    return [block for block in parts if block.runs]


_SHARED: Mapping[str, str] = {
    "data_fingerprint": "data",
    "eval_fingerprint": "data",
    "base": "finetune.parent",
}
"""Facts that are equal inside a block, each with the config node whose declaration excuses it."""


def _check_facts(members: Sequence[Run], where: str) -> None:
    control = members[0]
    for run in members[1:]:
        touches = [*control.config.variant.touches, *run.config.variant.touches]
        for fact, node in _SHARED.items():
            if not is_covered_by(node, touches) and getattr(run.facts, fact) != getattr(control.facts, fact):
                raise UserError(
                    f"{where}: '{run.variant}' and '{control.variant}' have different {fact} "
                    f"({getattr(run.facts, fact)} against {getattr(control.facts, fact)}). If they are meant "
                    f"to differ, declare '{node}' in variant.touches."
                )
