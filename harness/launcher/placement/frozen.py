"""Frozen places of runs: the first launch writes them into the ledger, and every later one reads them."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.config.schema.cluster import MeshConfig
from harness.core.hashing import to_plain
from harness.launcher.cost.step_cost import RunEstimate, possible_meshes
from harness.launcher.runs import Block, Run
from harness.records.paths import SweepDir
from harness.records.sweep import ledger


@dataclass(frozen=True)
class FrozenPlace:
    """Lane of a run: its position in its block, and the shape of its mesh."""

    block: str
    lane: int
    mesh: MeshConfig


def read_places(sweep: SweepDir) -> dict[str, FrozenPlace]:
    """Return the places in the ledger, by run; later entries replace earlier ones."""
    places: dict[str, FrozenPlace] = {}
    for entry in ledger.read_valid(sweep, "placement"):
        for name, place in entry["content"]["runs"].items():
            places[name] = FrozenPlace(place["block"], place["lane"], MeshConfig(**place["mesh"]))
    return places


def freeze_places(
    sweep: SweepDir,
    blocks: Sequence[Block],
    replan: Container[str] = (),
    estimates: Mapping[str, RunEstimate] | None = None,
    cores: int | None = None,
) -> dict[str, FrozenPlace]:
    """Write a place for each run that has none, or whose name is in `replan`. Returns all places. The
    estimate of a run is written beside its place, to be compared with its measured time later. `cores`: cores
    of the machine, if it simulates the devices."""
    existing, new, estimates = read_places(sweep), {}, estimates or {}
    for block in blocks:
        for lane, run in enumerate(block.runs):
            place = FrozenPlace(block.name, lane, run.config.mesh)
            if run.name not in existing or (run.name in replan and place != existing[run.name]):
                new[run.name] = place
    if existing and (added := [name for name in new if name not in existing]):
        ledger.append(sweep, "amendment", {"detail": _addition_text(added, existing), "runs": added})
    if new:
        records = {name: to_plain(place) | _prediction(estimates.get(name)) for name, place in new.items()}
        ledger.append(sweep, "placement", {"runs": records} | ({"cores": cores} if cores else {}))
    return existing | new


def runs_on_other_mesh(runs: Sequence[Run], places: Mapping[str, FrozenPlace]) -> list[Run]:
    """Return the runs whose config asks for another mesh than the frozen one. With `engine.devices` it asks
    for one of several, which differ in the data axis."""

    def allowed(run: Run) -> Collection[MeshConfig]:
        return possible_meshes(run.config).values() if run.config.engine.devices else [run.config.mesh]

    return [run for run in runs if places[run.name].mesh not in allowed(run)]


def on_frozen_mesh(run: Run, places: Mapping[str, FrozenPlace]) -> Run:
    """Return the run on its frozen mesh; unchanged if it has no place yet."""
    return run.on_mesh(places[run.name].mesh) if run.name in places else run


def in_lane_order(block: Block, places: Mapping[str, FrozenPlace]) -> Block:
    """Return the block with its runs in the order of their lanes, each on its frozen mesh."""
    ordered = sorted(block.runs, key=lambda run: places[run.name].lane)
    return Block(block.name, tuple(on_frozen_mesh(run, places) for run in ordered))


def _prediction(estimate: RunEstimate | None) -> dict[str, Any]:
    """Return the predicted seconds of a run and of its steps; empty for a run without an estimate."""
    if estimate is None:
        return {}
    step = estimate.train / estimate.steps
    share = step / estimate.seconds
    interval = _interval(step, share * estimate.low, share * estimate.high)
    raw = {"raw": _four_digits(step / estimate.factor), "evidence": estimate.evidence}
    whole_run = _interval(estimate.seconds, estimate.low, estimate.high)
    parts = {name: _four_digits(getattr(estimate, name)) for name in ("startup", "train")}
    parts["steps"] = estimate.steps
    return {"predicted": whole_run | parts, "step": interval | raw}


def _interval(seconds: float, low: float, high: float) -> dict[str, float]:
    return {"seconds": _four_digits(seconds), "low": _four_digits(low), "high": _four_digits(high)}


def _four_digits(seconds: float) -> float:
    return float(f"{seconds:.4g}")


def _addition_text(added: Sequence[str], existing: Mapping[str, FrozenPlace]) -> str:
    """Return a sentence with the scales, variants and seeds that are new in the ledger."""
    words = []
    for position, level in enumerate(("scale", "variant", "seed")):
        before = {name.split("/")[position] for name in existing}
        new = sorted({name.split("/")[position] for name in added} - before)
        words += [f"{level} {' '.join(new)}"] if new else []
    return f"added after the first launch: {', '.join(words) or f'{len(added)} runs'}"
