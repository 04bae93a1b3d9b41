"""One machine for several runs: how many chips each gets, and what mixing kinds of chips costs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from harness.config.errors import UserError
from harness.plan.calibration import efficiency
from harness.plan.clusters import Chip, Cluster, Links, Partition
from harness.plan.memory import MIXED, Recipe
from harness.plan.model import ModelShape
from harness.plan.predict import Prediction, predict

ROUNDS = 3
"""Times that shares are set anew from the days that the last ones would take."""


@dataclass(frozen=True)
class Member:
    """One run with its chips."""

    model: ModelShape
    kind: str
    chips: int
    """Whole fast domains."""
    prediction: Prediction | None
    refused: str = ""
    """Why it cannot run as announced, where it cannot."""


@dataclass(frozen=True)
class Mixing:
    """What running one job over chips of several kinds costs."""

    efficiency: float
    """min C / mean C: the slowest chip sets the pace."""
    won_back: float
    """Factor by which jobs of one kind each are faster in sum: 1 / efficiency."""


def speed(chip: Chip, precision: str) -> float:
    """FLOP/s that large products reach."""
    return chip.peak(precision) * efficiency(chip.name).dense


def mixing(cluster: Cluster, precision: str = "bf16") -> Mixing:
    """By what large products reach on each kind; `together` also takes memory and links into account."""
    speeds = [(part.chips, speed(part.chip, precision)) for part in cluster.partitions]
    mean = sum(chips * each for chips, each in speeds) / cluster.chips
    share = min(each for _, each in speeds) / mean
    return Mixing(share, 1 / share)


def together(cluster: Cluster) -> Partition:
    """All chips as one kind: every number is that of the worst, since equal work is given to each."""
    parts = cluster.partitions
    shared = set.intersection(*(set(part.chip.peaks) for part in parts))
    slowest = min(parts, key=lambda part: speed(part.chip, "bf16"))
    chip = Chip(
        slowest.chip.name,
        min(part.chip.memory for part in parts),
        min(part.chip.memory_bandwidth for part in parts),
        {name: min(part.chip.peaks[name] for part in parts) for name in sorted(shared)},
    )
    links = Links(
        min(part.links.fast_domain for part in parts),
        min(part.links.fast for part in parts),
        min(part.links.slow for part in parts),
    )
    failures = sum(part.chips / part.device_years for part in parts)
    watts = sum(part.watts * part.chips for part in parts) / cluster.chips
    return Partition("together", chip, links, cluster.chips, watts, cluster.chips / failures)


def share_out(
    models: Sequence[ModelShape],
    cluster: Cluster,
    *,
    shares: Mapping[str, float] | None = None,
    recipe: Recipe = MIXED,
) -> list[Member]:
    """Chips for each run, so that all end together, or by given shares of the machine (by name; they need
    not sum to 1). On a machine of several kinds each run gets chips of one kind.

    Raises UserError for a model without a token budget, or fewer fast domains than runs.
    """
    for model in models:
        if shares is None and model.tokens is None:
            raise UserError(f"{model.name} has no token budget: set scale.tokens, or give shares.")
    missing = [model.name for model in models if shares is not None and model.name not in shares]
    if missing:
        raise UserError(f"shares name no {missing[0]}: give each of {', '.join(m.name for m in models)}.")
    work = {model.name: shares[model.name] if shares else _work(model) for model in models}
    assigned = _by_kind(models, cluster, work, recipe)
    find = _finder(cluster, recipe)
    members: list[Member] = []
    for part in cluster.partitions:
        own = [model for model in models if assigned[model.name] == part.name]
        members += _share_part(own, part, work, find, fixed=shares is not None)
    order = {model.name: index for index, model in enumerate(models)}
    return sorted(members, key=lambda member: order[member.model.name])


def _work(model: ModelShape) -> float:
    return model.flops_per_token * (model.tokens or 0)


def _by_kind(
    models: Sequence[ModelShape], cluster: Cluster, work: Mapping[str, float], recipe: Recipe
) -> dict[str, str]:
    """A kind for each run, so that the kind that ends last ends first; every way is tried."""
    capacity = [part.chips * speed(part.chip, recipe.precision) for part in cluster.partitions]
    amounts = [work[model.name] for model in models]

    def load(ways: tuple[int, ...]) -> float:
        sums = [0.0] * len(capacity)
        for kind, amount in zip(ways, amounts, strict=True):
            sums[kind] += amount
        return max(amount / room for amount, room in zip(sums, capacity, strict=True))

    chosen = min(product(range(len(capacity)), repeat=len(models)), key=load)
    return {m.name: cluster.partitions[kind].name for m, kind in zip(models, chosen, strict=True)}


def _share_part(
    models: Sequence[ModelShape], part: Partition, work: Mapping[str, float], find: Find, *, fixed: bool
) -> list[Member]:
    """Runs on chips of one kind. What a run needs is set anew from how long it would take with what it got;
    of the rounds, the one that ends first counts."""
    if not models:
        return []
    needs, rounds = [work[model.name] for model in models], []
    for _ in range(1 if fixed else ROUNDS):
        chips = whole_domains(needs, part.chips, part.links.fast_domain)
        members = [find(model, part, count) for model, count in zip(models, chips, strict=True)]
        rounds.append(members)
        needs = [_need(member) for member in members]
    return min(rounds, key=lambda members: max(map(_days, members)))


def _days(member: Member) -> float:
    days = member.prediction.days if member.prediction else None
    return days.value if days else 0.0


def _need(member: Member) -> float:
    """Chip-days, of the chips that it can use."""
    used = member.prediction.devices if member.prediction else member.chips
    return used * (_days(member) or 1.0)


Find = Callable[[ModelShape, Partition, int], Member]


def _finder(cluster: Cluster, recipe: Recipe) -> Find:
    """Two variants of one size are searched for once."""
    known: dict[tuple[ModelShape, str, int], Prediction | str] = {}

    def find(model: ModelShape, part: Partition, chips: int) -> Member:
        key = dataclasses.replace(model, name=""), part.name, chips
        if key not in known:
            try:
                known[key] = predict(model, cluster, kind=part.name, devices=chips, recipe=recipe)
            except UserError as error:
                known[key] = str(error)
        found = known[key]
        if isinstance(found, str):
            return Member(model, part.name, chips, None, found)
        return Member(model, part.name, chips, dataclasses.replace(found, model=model))

    return find


def whole_domains(needs: Sequence[float], chips: int, domain: int) -> list[int]:
    """Chips in proportion to what is needed, in whole fast domains, at least one each; largest remainders
    first. Raises UserError where there are fewer domains than runs."""
    domains = chips // domain
    if domains < len(needs):
        raise UserError(f"{len(needs)} runs want a fast domain of {domain} chips each; there are {domains}.")
    spare = domains - len(needs)
    exact = [max(0.0, need / sum(needs) * domains - 1) for need in needs]
    scale = spare / sum(exact) if sum(exact) else 0.0
    given = [math.floor(each * scale) for each in exact]
    rest = sorted(range(len(needs)), key=lambda i: given[i] - exact[i] * scale)
    for index in rest[: spare - sum(given)]:
        given[index] += 1
    return [(1 + each) * domain for each in given]
