"""Sweeps on disk whose truth is known: a ladder of runs drawn from a loss surface, written through `records`.

    write_sweep(tmp_path / "sweep", Recipe(variants={"mha": 1.0, "hybrid": 1.05}))

makes scales x variants x seeds runs, each with metrics, status, provenance, config, the hash of its
examples, and its cooldown branches. `edit` may change the draft of any run before it is written
(or drop it by returning False): that is how the tests make the odd sweeps.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
import yaml

from harness.config.schema import run as schema
from harness.config.schema.decision import RuleConfig, Stopping
from harness.core import atomic_files
from harness.core.hashing import hash_json, to_plain
from harness.records.paths import RunDir, SweepDir
from harness.records.run import metrics, provenance, status
from harness.records.sweep import ledger

DOMAINS = ("code", "prose")
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass(frozen=True)
class Recipe:
    """What is drawn. `variants` maps a name to its true k (the first is the control)."""

    experiment: str = "synthetic"
    scales: dict[str, int] = field(default_factory=lambda: {"xs": 10**7, "s": 3 * 10**7, "m": 10**8})
    """Non-embedding parameters; each trains 20 tokens a parameter."""
    variants: dict[str, float] = field(default_factory=lambda: {"mha": 1.0, "hybrid": 1.05})
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 64
    points: int = 8
    branches: tuple[float, ...] = (0.5,)
    run_sd: float = 0.0011
    correlation: float = 0.25
    rng: int = 0
    positive_control: str | None = None
    stopping: str = "none"
    margin: float = 0.01
    with_steps: bool = True
    beside: dict[str, Any] = field(default_factory=dict)
    """What rule.json holds beside the rule: gate, tuning."""
    null_orders: int = 0
    """If set: seed k shares data order k % null_orders (an A/A sweep)."""


@dataclass
class Draft:
    """A run before it is written; `edit` may change anything."""

    scale: str
    variant: str
    seed: int
    config: dict[str, Any]
    facts: dict[str, Any]
    run: dict[str, Any]
    status: dict[str, Any]
    evals: list[dict]
    steps: list[dict]
    examples: dict[str, Any] | None
    branches: dict[float, list[dict]]
    ended: bool = True
    """Whether the hash of its examples lies beside it, as beside a run that came to its end."""


Edit = Callable[[Draft], Any]


@overload
def surface(parameters: float, tokens: float, k: float = ...) -> float: ...
@overload
def surface(parameters: float | np.ndarray, tokens: np.ndarray, k: float = ...) -> np.ndarray: ...
def surface(parameters: Any, tokens: Any, k: float = 1.0) -> Any:
    """1.82 + 482/N^.348 + 2085/(k D)^.366: the generator of the acceptance table."""
    return 1.82 + 482 / parameters**0.348 + 2085 / (k * tokens) ** 0.366


def write_sweep(path: Path, recipe: Recipe | None = None, edit: Edit | None = None) -> SweepDir:
    """Write a whole sweep and return it."""
    recipe, sweep = recipe or Recipe(), SweepDir(Path(path))
    rng = np.random.default_rng(recipe.rng)
    write_rule(sweep, recipe)
    for scale in recipe.scales:
        for seed in recipe.seeds:
            shared = rng.normal()
            for variant in recipe.variants:
                draft = draw(recipe, scale, variant, seed, shared, rng)
                if edit is None or edit(draft) is not False:
                    write_run(sweep, draft)
    return sweep


def at_look(draft: Draft, share: float, state: str = "stopped") -> None:
    """What a run leaves that went no further than the look at `share`: its branch, and its own steps up to
    where that forks off."""
    fork = int(0.85 * share * draft.status["steps"])
    draft.status |= {"state": state, "step": fork}
    draft.evals = [row for row in draft.evals if row["step"] <= fork]
    draft.steps = [row for row in draft.steps if row["step"] <= fork]
    draft.branches = {at: rows for at, rows in draft.branches.items() if at <= share}
    draft.ended = False


def write_rule(sweep: SweepDir, recipe: Recipe) -> None:
    content = {"rule": to_plain(_rule(recipe)), **recipe.beside}
    hashed = content | {"hash": hash_json(content)}
    atomic_files.write_json(sweep.rule, hashed)
    ledger.append(sweep, "rule", hashed)


def draw(recipe: Recipe, scale: str, variant: str, seed: int, shared: float, rng) -> Draft:
    """One run's draft; `shared` is the part of the run effect that its block has in common."""
    parameters, k = recipe.scales[scale], recipe.variants[variant]
    tokens = 20 * parameters // recipe.steps * recipe.steps
    own = rng.normal()
    effect = recipe.run_sd * (recipe.correlation**0.5 * shared + (1 - recipe.correlation) ** 0.5 * own)
    config = _config(recipe, scale, variant, seed)
    facts = _facts(parameters, recipe, variant, tokens)
    run = _provenance(config, recipe, scale, variant, seed, parameters, tokens)

    def row(share: float, decayed: bool) -> list[dict]:
        late = effect * (9 - 8 * share) + 0.0002 * rng.normal()
        loss = surface(parameters, tokens * share, k) + late + (0.0 if decayed else 0.05)
        return [_eval(recipe, facts, share, domain, loss, decayed) for domain in DOMAINS]

    shares = [(i + 1) / recipe.points for i in range(recipe.points)]
    evals = [r for share in shares for r in row(share, share == 1.0)]
    branches = {share: row(share, True) for share in recipe.branches}
    steps = _steps(recipe, facts, parameters, tokens, k, rng) if recipe.with_steps else []
    state = {"state": "finished", "step": recipe.steps, "steps": recipe.steps, "tokens": tokens}
    order = config["data_seed"]
    examples = {"steps": recipe.steps, "hash": hashlib.sha256(f"{scale}/{order}".encode()).hexdigest()}
    return Draft(scale, variant, seed, config, facts, run, state, evals, steps, examples, branches)


def write_run(sweep: SweepDir, draft: Draft) -> RunDir:
    """Write a draft where its scale, variant and seed say."""
    run = sweep.run(draft.scale, draft.variant, draft.seed)
    _write(run, draft, draft.evals, draft.steps, draft.examples if draft.ended else None, parent=None)
    for share, evals in draft.branches.items():
        branch = run.branch(share)
        end = max((r["step"] for r in evals), default=0)
        parent = {"run": draft.run["identity"], "step": int(end * 0.85), "share": share}
        hashed = draft.examples and {
            "steps": end,
            "hash": hashlib.sha256((draft.examples["hash"] + str(share)).encode()).hexdigest(),
        }
        _write(branch, draft, evals, [], hashed, parent=parent)
    return run


def _write(run: RunDir, draft: Draft, evals, steps, examples, parent) -> None:
    record = provenance.Provenance(**draft.run, facts=provenance.Facts(**draft.facts), parent=parent)
    provenance.write_provenance(run, record)
    text = yaml.dump(draft.config, Dumper=_DUMPER, sort_keys=False)
    seal = hashlib.sha256(text.encode()).hexdigest()
    atomic_files.write_text(run.config, f"{text}# sha256 of the lines above: {seal}\n")
    fields: dict[str, Any] = draft.status | {"state": status.State(draft.status["state"])}
    state = status.Status(**fields)
    end = max([r["step"] for r in [*evals, *steps]], default=0)
    if parent:
        state = dataclasses.replace(state, state=status.State.finished, step=end)
    status.write_status(run, state)
    end = max(end, state.step)
    start = parent["step"] if parent else 0
    metrics.write_part(run, "evals", start, end, evals)
    metrics.write_part(run, "steps", start, end, steps)
    if examples is not None:
        atomic_files.write_checksummed_json(run.path / "examples.json", examples)


def _rule(recipe: Recipe) -> RuleConfig:
    return RuleConfig(
        hypothesis="the treatment needs fewer tokens",
        control=next(iter(recipe.variants)),
        positive_control=recipe.positive_control,
        margin=recipe.margin,
        stopping=Stopping(recipe.stopping),
    )


def _config(recipe: Recipe, scale: str, variant: str, seed: int) -> dict[str, Any]:
    tokens, batch, length = 20 * recipe.scales[scale], 8, 128
    config = schema.Config(
        experiment_name=recipe.experiment,
        variant=schema.VariantConfig(variant, ["model.attention"]),
        scale=schema.ScaleConfig(scale, recipe.scales[scale], tokens, batch),
        model=schema.ModelConfig(attention=schema.ModuleConfig(variant)),
        data=schema.DataConfig(name="pack", sequence_length=length),
        optimizer=schema.OptimizerConfig(learning_rate=3e-3),
        schedule=schema.ScheduleConfig(name="wsd", branches=list(recipe.branches)),
        rule=_rule(recipe),
        seed=seed,
        data_seed=seed % recipe.null_orders if recipe.null_orders else seed,
    )
    return to_plain(config)


def _facts(parameters: int, recipe: Recipe, variant: str, tokens: int) -> dict[str, Any]:
    half = parameters // 2
    paths = {"layers/ffn": [half, 1], f"layers/{variant}": [parameters - half, 1], "embed": [64, 32]}
    return {
        "parameters": parameters + 2048,
        "non_embedding": parameters,
        "embedding": 2048,
        "shape": {"width": 64, "layers": 4, "vocabulary": 512},
        "flops_per_token": 6.0 * parameters,
        "executed_flops_per_token": 6.6 * parameters,
        "paths": paths,
        "state_bytes": 16 * parameters,
        "activation_bytes": 4 * parameters,
        "steps": recipe.steps,
        "tokens_per_step": tokens // recipe.steps,
        "data_fingerprint": "d" * 64,
        "eval_fingerprint": "e" * 64,
    }


def _provenance(config, recipe, scale, variant, seed, parameters, tokens) -> dict[str, Any]:
    return {
        "identity": hash_json({key: value for key, value in config.items() if key != "rule"}),
        "config_hash": hash_json(config),
        "code_hash": "c" * 64,
        "experiment": recipe.experiment,
        "scale": scale,
        "variant": variant,
        "seed": seed,
        "data_seed": config["data_seed"],
        "parameters": parameters,
        "tokens": tokens,
        "versions": {"jax": "0.10.2"},
        "touches": ["model.attention"],
    }


def _eval(recipe: Recipe, facts: dict, share: float, domain: str, loss: float, decayed: bool) -> dict:
    step = round(recipe.steps * share)
    tokens = step * facts["tokens_per_step"]
    shift = 0.1 if domain == "code" else -0.1
    return {
        "step": step,
        "tokens": tokens,
        "flops": tokens * facts["flops_per_token"],
        "domain": domain,
        "loss": loss + shift,
        "bits_per_byte": (loss + shift) / 2.5,
        "decayed": decayed,
        "device_seconds": step * 0.01,
    }


def _steps(recipe: Recipe, facts: dict, parameters: int, tokens: int, k: float, rng) -> list[dict]:
    noise = 0.03 * rng.normal(size=recipe.steps)
    per_step = facts["tokens_per_step"]
    return [
        {
            "step": i + 1,
            "tokens": (i + 1) * per_step,
            "flops": (i + 1) * per_step * facts["flops_per_token"],
            "loss": surface(parameters, (i + 1) * per_step, k) + noise[i],
            "grad_norm": 1.0,
            "learning_rate": 3e-3,
            "device_seconds": (i + 1) * 0.01,
        }
        for i in range(recipe.steps)
    ]


def example(path: Path) -> SweepDir:
    """The sweep that a reader of reports may want: three variants, three scales, three seeds."""
    variants = {"mha": 1.0, "hybrid": 1.04, "short": 0.7}
    return write_sweep(path, Recipe(variants=variants, positive_control="short"))


__all__ = ["DOMAINS", "Draft", "Recipe", "draw", "example", "surface", "write_run", "write_sweep"]
