"""Sweeps for the tests of the fleet: real configs, made-up facts, the fake worker."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from harness.cli.views.dry_run import print_forecast
from harness.config.schema.cluster import MeshConfig
from harness.config.schema.decision import RuleConfig
from harness.config.schema.engine import EngineConfig, Isolation, OnFailure
from harness.config.schema.run import Config, OptimizerConfig, ScaleConfig, ScheduleConfig, VariantConfig
from harness.launcher.cost import launch_conditions
from harness.launcher.engines.local.fork_client import ForkServer
from harness.launcher.engines.local.local_engine import LocalEngine
from harness.launcher.sweep import LaunchHooks, Outcome, launch
from harness.records.run.provenance import Facts

STEPS = 20


def config(runs: Path, variant: str = "mha", seed: int = 0, scale: str = "xs", **engine) -> Config:
    made = Config(
        experiment_name="trial",
        variant=VariantConfig(variant, ["model.attention"]),
        scale=ScaleConfig(scale, 1000, 12800, 10),
        optimizer=OptimizerConfig(learning_rate=0.001),
        schedule=ScheduleConfig("wsd"),
        engine=_engine(engine),
        rule=RuleConfig(control="mha"),
        mesh=MeshConfig(),
        seed=seed,
        data_seed=seed,
        runs=str(runs),
    )
    made.data.name = "made_up"
    made.model.attention.name = variant
    return made


def _engine(settings: dict) -> EngineConfig:
    made = EngineConfig(**{"backoff_seconds": 0.05, "workers": 2} | settings)
    made.isolation, made.on_failure = Isolation(made.isolation), OnFailure(made.on_failure)
    return made


def configs(runs: Path, variants=("mha", "short"), seeds=(0, 1), scales=("xs",), **engine) -> list[Config]:
    return [config(runs, v, seed, s, **engine) for v in variants for s in scales for seed in seeds]


def facts(config: Config) -> Facts:
    return Facts(
        parameters=1200,
        non_embedding=1000,
        embedding=200,
        shape={"width": 8, "layers": 2, "heads": 1, "head_width": 8, "ffn": 16, "vocabulary": 512},
        flops_per_token=6000.0,
        executed_flops_per_token=6600.0,
        paths={"w": [8, 8]},
        state_bytes=16 * 1200,
        activation_bytes=1000,
        steps=STEPS,
        tokens_per_step=1280,
        data_fingerprint="d",
        eval_fingerprint="e",
        divisors={"fsdp": 8, "tensor": 1, "context": 128},
        ends_decayed=config.schedule.name != "constant" and config.schedule.cooldown > 0,
    )


class LastingEngine(LocalEngine):
    """Outlives its launch: the fork server starts once for all tests."""

    def close(self) -> None:
        pass


@functools.cache
def lasting_engine() -> LastingEngine:
    module = "tests.launcher.fake_worker"
    return LastingEngine(Path(tempfile.mkdtemp()), module, ForkServer(("polars", module)))


def tools(conclude=None) -> LaunchHooks:
    return LaunchHooks(
        describe=lambda configs: [facts(each) for each in configs],
        engine=lambda *_: lasting_engine(),
        conclude=conclude or (lambda *_: None),
        show_plan=lambda plan, console: print_forecast(plan.blocks, plan.forecast, console),
    )


def train(made: Sequence[Config], console: Console | None = None) -> list[Outcome]:
    return launch(made, tools(), console or Console(quiet=True))


def drive(runs: Path, pace: float = 0.01, **settings) -> subprocess.Popen:
    """The same in a process of its own, which can be killed. `pace`: seconds a step."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.launcher.support", str(runs), json.dumps(settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"FAKE_PACE": str(pace)},
    )


def wait_for(condition, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


if __name__ == "__main__":
    launch_conditions.share_of_a_core = lambda seconds=0.0: 1.0  # as tests/launcher/conftest.py says
    outcomes = train(configs(Path(sys.argv[1]), **json.loads(sys.argv[2])), Console())
    print(json.dumps([outcome.state for outcome in outcomes]))
