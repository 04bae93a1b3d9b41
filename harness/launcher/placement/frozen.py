"""Where each run is trained: fixed in the ledger by the first launch, read from there ever after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.config.schema.cluster import MeshConfig
from harness.core.hashing import to_plain
from harness.launcher.cost.step_cost import RunEstimate
from harness.launcher.runs import Block, Run
from harness.records.paths import SweepDir
from harness.records.sweep import ledger


@dataclass(frozen=True)
class FrozenPlace:
    """A run's lane: its position in its block, and the shape of its mesh."""

    block: str
    lane: int
    mesh: MeshConfig


def read_places(sweep: SweepDir) -> dict[str, FrozenPlace]:
    """The places that were given so far, by run; later entries of the ledger replace earlier ones."""
    places: dict[str, FrozenPlace] = {}
    for entry in ledger.read_valid(sweep, "placement"):
        for name, place in entry["content"]["runs"].items():
            places[name] = FrozenPlace(place["block"], place["lane"], MeshConfig(**place["mesh"]))
    return places


def freeze_places(
    sweep: SweepDir,
    blocks: Sequence[Block],
    replanned: Sequence[str] = (),
    estimates: Mapping[str, RunEstimate] | None = None,
) -> dict[str, FrozenPlace]:
    """Give a place to each run that has none, or that is to be placed anew, and return all places.

    What was predicted of a run stands beside its place, so that it can be held against what it took.
    """
    known = read_places(sweep)
    wanted = {run.name: _place(block, lane, run) for block in blocks for lane, run in enumerate(block.runs)}
    new = {
        name: place
        for name, place in wanted.items()
        if name not in known or (name in replanned and place != known[name])
    }
    if known and (added := [name for name in new if name not in known]):
        ledger.append(sweep, "amendment", {"detail": _added(added, known), "runs": added})
    if new:
        ledger.append(
            sweep,
            "placement",
            {"runs": {name: _record(place) | _predicted(name, estimates) for name, place in new.items()}},
        )
    return known | new


def runs_on_other_mesh(runs: Sequence[Run], places: Mapping[str, FrozenPlace]) -> list[Run]:
    """Runs that this command would put on another mesh than the one they are frozen to."""
    return [run for run in runs if places[run.name].mesh != run.config.mesh]


def block_on_frozen_meshes(block: Block, places: Mapping[str, FrozenPlace]) -> Block:
    """The block with the meshes of those of its runs that have a place."""
    return Block(
        block.name, tuple(on_frozen_mesh(run, places) if run.name in places else run for run in block.runs)
    )


def on_frozen_mesh(run: Run, places: Mapping[str, FrozenPlace]) -> Run:
    """The run with the mesh that it is frozen to."""
    return run.on_mesh(places[run.name].mesh)


def in_lane_order(block: Block, places: Mapping[str, FrozenPlace]) -> Block:
    """Return the block with its runs in the order of their lanes, each on the mesh that it is frozen to."""
    ordered = sorted(block.runs, key=lambda run: places[run.name].lane)
    return Block(block.name, tuple(on_frozen_mesh(run, places) for run in ordered))


def _place(block: Block, lane: int, run: Run) -> FrozenPlace:
    return FrozenPlace(block.name, lane, run.config.mesh)


def _record(place: FrozenPlace) -> dict[str, Any]:
    return {"block": place.block, "lane": place.lane, "mesh": to_plain(place.mesh)}


def _predicted(name: str, estimates: Mapping[str, RunEstimate] | None) -> dict[str, Any]:
    """Seconds of a run, and of its steps."""
    if estimates is None or name not in estimates:
        return {}
    each = estimates[name]
    step = each.train / each.steps
    share = step / each.seconds
    of_step = _span(step, share * each.low, share * each.high)
    raw = {"raw": _short(step / each.factor), "evidence": each.evidence}
    return {"predicted": _span(each.seconds, each.low, each.high), "step": of_step | raw}


def _span(seconds: float, low: float, high: float) -> dict[str, Any]:
    return {"seconds": _short(seconds), "low": _short(low), "high": _short(high)}


def _short(seconds: float) -> float:
    """To four digits."""
    return float(f"{seconds:.4g}")


def _added(added: Sequence[str], known: Mapping[str, FrozenPlace]) -> str:
    """Which scales, variants and seeds the ledger did not know, in words."""
    words = []
    for position, what in enumerate(("scale", "variant", "seed")):
        before = {name.split("/")[position] for name in known}
        new = sorted({name.split("/")[position] for name in added} - before)
        words += [f"{what} {' '.join(new)}"] if new else []
    return f"added after the first launch: {', '.join(words) or f'{len(added)} runs'}"
