"""Memory that a layout needs against that of a device, and what would make it fit: the same words for a plan,
a dry run, a launch and a worker."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from harness.config.schema.run import Remat
from harness.core.number_format import format_bytes
from harness.estimate.layouts import Layout, LayoutGrid, divisors, layout_overrides
from harness.estimate.memory import device_memory
from harness.estimate.model_size import ModelShape

STATE = ("weights", "optimizer")
"""Parts of the memory that last from step to step."""


@dataclass(frozen=True)
class WayToFit:
    """Change of the config, and the bytes of a device with it."""

    overrides: str
    layout: Layout
    bytes: float


def layout_memory(model: ModelShape, layout: Layout) -> dict[str, float]:
    """Return the bytes of the fullest device by part."""
    memory = device_memory(model, LayoutGrid.from_layouts([layout]))
    return {part.name: float(getattr(memory, part.name)[0]) for part in dataclasses.fields(memory)}


def shortage(model: ModelShape, layout: Layout, limit: float, source: str, devices: int) -> str:
    """Return why a layout that needs more than `limit` bytes a device does not fit, and how far each change
    would get on at most so many `devices`. `source`: what the limit is, such as `80 % of an H100-80G`."""
    parts = layout_memory(model, layout)
    state = sum(parts[name] for name in STATE)
    other_parts = ", ".join(
        f"{name} {format_bytes(parts[name])}" for name in parts if name not in STATE and parts[name]
    )
    return (
        f"{model.name} needs {format_bytes(sum(parts.values()))} a device, but has {format_bytes(limit)} "
        f"({source}): state {format_bytes(state)}, {other_parts}. {ways_text(model, layout, limit, devices)}"
    )


def ways_text(model: ModelShape, layout: Layout, limit: float, devices: int) -> str:
    """Return how far each way gets, in one sentence, and what is left if none of them is enough."""
    ways = ways_to_fit(model, layout, limit, devices)
    phrases = [
        f"{way.overrides} needs {format_bytes(way.bytes)}{' and fits' if way.bytes <= limit else ''}"
        for way in ways
    ]
    fits = any(way.bytes <= limit for way in ways)
    last_resort = "" if fits else "Use more devices, shorter sequences or a smaller model."
    return " ".join(filter(None, (f"{'; '.join(phrases)}." if phrases else "", last_resort)))


def ways_to_fit(model: ModelShape, layout: Layout, limit: float, devices: int) -> list[WayToFit]:
    """Return what each change alone needs, and all of them together: the smallest step of each that fits,
    else the one that gets furthest. `devices`: the most that a layout may have."""

    def best_step(steps: Sequence[Layout]) -> WayToFit:
        ways = [_way(model, layout, step) for step in steps]
        return next((way for way in ways if way.bytes <= limit), min(ways, key=lambda way: way.bytes))

    remat = [] if layout.remat is Remat.full else [dataclasses.replace(layout, remat=Remat.full)]
    shards = [changed for changed in _more_shards(model, layout) if changed.devices <= devices]
    steps = [steps for steps in (remat, _smaller_passes(layout), shards) if steps]
    ways = [best_step(layouts) for layouts in steps]
    if len(ways) > 1:
        sharded = ways[-1].layout if shards else layout
        full_remat = dataclasses.replace(sharded, remat=Remat.full)
        ways.append(best_step([*_smaller_passes(full_remat), full_remat][::-1]))
    return ways


def _way(model: ModelShape, layout: Layout, changed: Layout) -> WayToFit:
    before = layout_overrides(layout, model.batch)
    changes = [text for text in layout_overrides(changed, model.batch) if text not in before]
    return WayToFit(" ".join(changes), changed, sum(layout_memory(model, changed).values()))


def _smaller_passes(layout: Layout) -> list[Layout]:
    """Return the layout with fewer and fewer sequences in a single pass."""
    sizes = [size for size in divisors(layout.microbatch) if size < layout.microbatch]
    return [dataclasses.replace(layout, microbatch=size) for size in reversed(sizes)]


def _more_shards(model: ModelShape, layout: Layout) -> list[Layout]:
    """Return the layout with more and more shards of the weights: in place of copies, then over more devices,
    as far as a pass has sequences for them."""
    copies = layout.data * layout.fsdp
    rows, layouts = copies * layout.microbatch, []
    for fsdp in divisors(rows):
        data = max(1, copies // fsdp)
        divides = model.limits is None or model.limits.divides("fsdp", fsdp)
        if fsdp > layout.fsdp and divides and rows % (data * fsdp) == 0:
            microbatch = rows // (data * fsdp)
            layouts.append(dataclasses.replace(layout, data=data, fsdp=fsdp, microbatch=microbatch))
    return layouts
