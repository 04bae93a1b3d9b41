"""The drift that finished ladders tell: recovered from walks of known size, frozen with the next rule."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from harness.compare.drift_library import read_drift
from harness.compare.stats.bet import SeenDrift, pooled_drift, seen_drift
from harness.core.errors import UserError
from harness.launcher.stages import freeze_rule
from harness.records.paths import SweepDir
from harness.records.sweep import ledger
from tests.compare.numbers import made
from tests.compare.synthetic import Draft, Recipe, write_sweep
from tests.launcher.support import configs

LADDERS = Recipe(variants={"mha": 1.0, **{f"v{i}": 1.0 + 0.02 * i for i in range(5)}}, with_steps=False)


def walking(draft: Draft) -> None:
    """Let the difference of each treatment move from scale to scale."""
    if draft.variant != "mha":
        step = {"xs": -1, "s": 0, "m": 1}[draft.scale] * (-1) ** int(draft.variant[1])
        for rows in (draft.evals, *draft.branches.values()):
            for row in rows:
                row["loss"] += 0.01 * step


@pytest.mark.parametrize("sd", [0.015, 0.05])
def test_the_walk_of_many_ladders_is_recovered(sd):
    random, log_flops = np.random.default_rng(0), [0.0, 2.0, 4.0, 6.0]
    seen = []
    for _ in range(400):
        log_k = np.concatenate([[0.0], np.cumsum(sd * np.sqrt(2.0) * random.normal(size=3))])
        noisy = log_k + 0.004 * random.normal(size=4)
        ladder = seen_drift(log_flops, [made(float(k), 0.004, df=6.0) for k in noisy])
        assert ladder
        seen.append(ladder)
    drift = pooled_drift(seen)
    assert drift
    assert drift.sd == pytest.approx(sd, rel=0.1)
    assert drift.df == 12.0, "however many ladders there are"


def test_few_or_short_ladders_tell_nothing():
    ladder = SeenDrift(4e-4, 1.5)
    assert pooled_drift([ladder] * 4) is None
    five, mixed = (
        pooled_drift(seen) for seen in ([ladder] * 5, [SeenDrift(4e-4, 3.0), *[SeenDrift(0.0, 1.0)] * 5])
    )
    assert five
    assert mixed
    assert (five.sd, five.df) == (pytest.approx(0.02), pytest.approx(7.5))
    assert (mixed.sd, mixed.df) == (pytest.approx(math.sqrt(4e-4 * 3 / 8)), 8.0)
    assert seen_drift([0.0, 2.0], [made(0.0, 0.01), made(0.1, 0.01)]) is None


def test_finished_sweeps_tell_it_for_their_kind_of_question(tmp_path):
    sweep = write_sweep(tmp_path / "one", LADDERS, walking)
    drift = read_drift([str(sweep.path)], ["model.attention"])
    assert drift.sd > 0
    assert 0 < drift.df <= 12
    with pytest.raises(UserError, match=r"rule\.drift_from=.*: they hold 0 valid ladders.* about the data"):
        read_drift([str(sweep.path)], ["data.sources"])
    constant = write_sweep(tmp_path / "constant", LADDERS)
    with pytest.raises(UserError, match="show no drift beyond their noise"):
        read_drift([str(constant.path)], [])
    with pytest.raises(UserError, match=r"rule\.drift_from=.*nowhere"):
        read_drift([str(tmp_path / "nowhere")], [])


def test_four_ladders_or_an_unfinished_sweep_are_refused_in_words(tmp_path):
    four = dataclasses.replace(LADDERS, variants=dict(list(LADDERS.variants.items())[:5]))
    with pytest.raises(UserError, match=r"they hold 4 valid ladders of three scales .* name more sweeps"):
        read_drift([str(write_sweep(tmp_path / "four", four).path)], [])

    def unfinished(draft: Draft) -> bool:
        return (draft.scale, draft.variant, draft.seed) != ("m", "v1", 2)

    with pytest.raises(UserError, match="it is not finished"):
        read_drift([str(write_sweep(tmp_path / "open", LADDERS, unfinished).path)], [])


def test_the_rule_freezes_what_it_learned(tmp_path):
    library = write_sweep(tmp_path / "one", LADDERS, walking)
    planned = configs(tmp_path / "runs", seeds=(0,))
    for config in planned:
        config.rule.control, config.rule.drift_from = "mha", [str(library.path)]
    sweep = SweepDir(tmp_path / "new")
    sweep.path.mkdir()
    freeze_rule.learn_drift(sweep, planned)
    drift = read_drift([str(library.path)], [])
    assert {(config.rule.drift, config.rule.drift_df) for config in planned} == {(drift.sd, drift.df)}
    assert freeze_rule.write_rule(sweep, planned[0], ["mha", "short"]) is None
    (library.path / "rule.json").unlink()
    for config in planned:
        config.rule.drift = None
    freeze_rule.learn_drift(sweep, planned)
    assert planned[0].rule.drift == drift.sd, "from the written rule, whatever became of the library"
    assert freeze_rule.write_rule(sweep, planned[0], ["mha", "short"]) is None
    assert not ledger.read_valid(sweep, "amendment")
    planned[0].rule.drift = 0.5
    with pytest.raises(UserError, match=r"rule\.drift=0\.5: rule\.drift_from sets it to"):
        freeze_rule.learn_drift(sweep, planned)
