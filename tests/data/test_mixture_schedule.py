import dataclasses
import itertools
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from harness.config.compose import compose
from harness.config.schema.data import DataConfig, StageConfig
from harness.config.schema.run import ScaleConfig
from harness.core.errors import UserError
from harness.data import count_shared_examples, describe_data, describe_mix, open_data

from .conftest import documents, text_corpus, write
from .test_describe_text import check_sentence

T, BATCH, STEPS = 16, 6, 50
SCALE = ScaleConfig("test", 1, T * BATCH * STEPS, BATCH)
LATE = [StageConfig(0.6, {"a": 3}), StageConfig(0.9, {"a": 0, "b": 1})]


@pytest.fixture
def staged(configure):
    """Even, then 3:1, then the second source alone, from steps 30 and 45 on."""
    return lambda weights, stages=LATE: configure(weights, stages=stages, horizon=SCALE.tokens)


def ids_by_step(config: DataConfig) -> list[list[int]]:
    sampler = open_data(config).sampler(BATCH, 3)
    return [sampler.batch(t).ids_B.tolist() for t in range(STEPS)]


def by_source(config: DataConfig) -> dict[str, list[list[int]]]:
    """The windows of each source by step."""
    domains, steps = text_corpus(config).domains, ids_by_step(config)
    return {
        domain.name: [[i for i in ids if (i - domain.salt) % 2**64 < len(domain.train)] for ids in steps]
        for domain in domains
    }


def test_a_stage_begins_with_its_step(staged):
    counts = {
        name: [len(ids) for ids in steps] for name, steps in by_source(staged({"a": 1, "b": 1})).items()
    }
    assert counts["a"][:30] == [3] * 30
    assert set(counts["a"][30:45]) == {4, 5}
    assert abs(sum(counts["a"][30:45]) - 0.75 * 15 * BATCH) < 1
    assert counts["a"][45:] == [0] * 5
    assert counts["b"][45:] == [BATCH] * 5


def test_a_stage_starts_at_one_share_of_every_budget(staged):
    config = staged({"a": 1, "b": 1})
    for steps in (10, 77, 1000):
        config.horizon = steps * BATCH * T
        found = describe_mix(config, ScaleConfig("test", 1, config.horizon, BATCH))
        assert [first for first, _ in found.mixes] == [0, round(0.6 * steps), round(0.9 * steps)]


def test_a_source_that_a_stage_does_not_name_keeps_its_weight(staged):
    config = staged({"a": 1, "b": 2, "c": 1}, [StageConfig(0.2, {"b": 6}), StageConfig(0.6, {"a": 0})])
    shares = [
        {name: count / 4096 for name, count in mix.items()} for _, mix in describe_mix(config, SCALE).mixes
    ]
    assert shares[0] == {"a": 0.25, "b": 0.5, "c": 0.25}
    assert shares[1] == {"a": 0.125, "b": 0.75, "c": 0.125}
    assert shares[2] == pytest.approx({"a": 0, "b": 6 / 7, "c": 1 / 7}, abs=1e-3)


def test_the_nth_example_of_a_source_is_the_same_in_every_mix(configure, staged):
    configs = [
        configure({"a": 1, "b": 1}),
        configure({"a": 5, "b": 1, "c": 2}),
        staged({"a": 1, "b": 1}),
        staged({"a": 1, "b": 4}, [StageConfig(0.1, {"b": 1})]),
    ]
    orders = [by_source(config) for config in configs]
    for one, other in itertools.combinations(orders, 2):
        for name in ("a", "b"):
            mine, theirs = ([*itertools.chain(*order[name])] for order in (one, other))
            least = min(len(mine), len(theirs))
            assert least > 30
            assert mine[:least] == theirs[:least]


def test_a_batch_needs_none_before_it(staged):
    config = staged({"a": 2, "b": 1})
    whole = ids_by_step(config)
    for t in (49, 46, 45, 44, 30, 29, 0):
        assert open_data(config).sampler(BATCH, 3).batch(t).ids_B.tolist() == whole[t]


def test_draws_are_what_a_run_reads(configure, staged):
    for config in (
        configure({"a": 1, "b": 1}),
        configure({"a": 0, "b": 1, "c": 7}),
        staged({"a": 1, "b": 3}),
    ):
        read = {name: sum(map(len, steps)) for name, steps in by_source(config).items()}
        assert describe_mix(config, SCALE).draws == read


def test_what_is_shared_is_what_the_ids_say(configure, staged):
    """Against multisets of the ids, over more than an epoch of each source."""
    configs = [
        configure({"a": 1, "b": 1, "c": 1}),
        configure({"a": 9, "b": 1, "c": 2}),
        configure({"a": 0, "b": 1, "c": 1}),
        staged({"a": 1, "b": 1, "c": 1}),
        staged({"a": 1, "b": 1}),
    ]
    runs = [ids_by_step(config) for config in configs]
    found = []
    for (one, mine), (other, theirs) in itertools.product(zip(configs, runs, strict=True), repeat=2):
        answer = count_shared_examples(one, other, SCALE)
        both = Counter(itertools.chain(*mine)) & Counter(itertools.chain(*theirs))
        steps = (Counter(a) & Counter(b) for a, b in zip(mine, theirs, strict=True))
        assert answer.in_both == both.total()
        assert answer.same_step == sum(each.total() for each in steps)
        assert answer.examples == BATCH * STEPS
        found.append(answer.same_step)
    assert len({*found}) > 5  # the pairs differ in what they share


def test_epochs_do_not_matter_to_what_is_shared(configure):
    """The sources are smaller than what a run takes of them."""
    one, other = configure({"a": 1, "b": 9}), configure({"a": 9, "b": 1})
    scale = dataclasses.replace(SCALE, tokens=T * BATCH * 1000)
    draws = [describe_mix(config, scale).draws for config in (one, other)]
    assert min(max(each.values()) for each in draws) > 2 * max(len(d.train) for d in text_corpus(one).domains)
    ids = [Counter(open_data(config).sampler(6000, 0).batch(0).ids_B.tolist()) for config in (one, other)]
    assert count_shared_examples(one, other, scale).in_both == (ids[0] & ids[1]).total() == 1200


@pytest.mark.parametrize("change", [{"tokenizer": "bpe512"}, {"holdout": 0.3}, {"sequence_length": 8}])
def test_other_windows_share_nothing(configure, change):
    one, other = configure({"a": 1}), configure({"a": 1}, **change)
    assert (
        count_shared_examples(one, other, SCALE).in_both,
        count_shared_examples(one, other, SCALE).same_step,
    ) == (0, 0)


def test_a_source_without_weight_is_evaluated_and_never_read(configure):
    config, even = configure({"a": 0, "b": 1}), configure({"a": 1, "b": 1})
    assert {*map(len, by_source(config)["a"])} == {0}
    held, reference = open_data(config).heldout(160), open_data(even).heldout(160)
    assert list(held) == ["a", "b"]
    assert all(np.array_equal(held[name].tokens_NT, reference[name].tokens_NT) for name in held)
    assert describe_data(config, 160).eval_fingerprint == describe_data(even, 160).eval_fingerprint


def test_a_source_without_weight_needs_no_text_to_train_on(configure):
    config = configure({"a": 0, "b": 1}, holdout=0.9)
    write(Path(config.sources["a"].path), documents("a", 30))
    config.sequence_length = len(text_corpus(config).domains[0].train.tokens) + 1
    describe_data(config, config.sequence_length)
    assert open_data(config).sampler(2, 0).batch(0).tokens_BT.shape == (2, config.sequence_length + 1)
    config.sources["a"].weight = 1.0
    with pytest.raises(UserError, match="training tokens"):
        open_data(config)


CHANGES = {
    "start": lambda config: setattr(config.stages[0], "start", 0.5),
    "weight": lambda config: config.stages[0].weights.update(a=4.0),
    "horizon": lambda config: setattr(config, "horizon", 2 * SCALE.tokens),
    "one fewer": lambda config: config.stages.pop(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_the_fingerprint_tells_other_stages(staged, change):
    config = staged({"a": 1, "b": 1}, [dataclasses.replace(each, weights={**each.weights}) for each in LATE])
    before, read = describe_data(config, 160), ids_by_step(config)
    change(config)
    after = describe_data(config, 160)
    assert before.fingerprint != after.fingerprint
    assert read != ids_by_step(config)
    assert before.eval_fingerprint == after.eval_fingerprint


def test_the_fingerprint_of_one_mix_knows_no_budget(configure):
    one = describe_data(configure({"a": 1, "b": 1}), 160)
    assert one == describe_data(configure({"a": 2, "b": 2}, horizon=SCALE.tokens), 160)


BAD_WEIGHTS = {"b": (-1.0, math.nan, math.inf, 1e200), "a": (-0.5,)}


@pytest.mark.parametrize(("name", "weight"), [(n, w) for n, ws in BAD_WEIGHTS.items() for w in ws])
def test_a_weight_that_is_none_is_told_in_one_sentence(configure, staged, name, weight):
    check_refusal(
        configure({"a": 1, "b": 1} | {name: weight}), [f"data.sources.{name}.weight={weight}", "above 0"]
    )
    late = staged({"a": 1, "b": 1}, [StageConfig(0.2), StageConfig(0.5, {name: weight})])
    check_refusal(late, [f"data.stages[1].weights.{name}={weight}", "above 0"])


def test_nothing_but_zeros_is_told_in_one_sentence(configure, staged):
    check_refusal(configure({"a": 0, "b": 0}), ["data.sources", "every weight is 0"])
    late = staged({"a": 1, "b": 0}, [StageConfig(0.5, {"a": 0})])
    check_refusal(late, ["data.stages[0].weights", "every weight is 0"])


@pytest.mark.parametrize("start", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_a_stage_outside_the_run_is_told_in_one_sentence(staged, start):
    check_refusal(
        staged({"a": 1}, [StageConfig(start)]), [f"data.stages[0].start={start}", "between 0 and 1"]
    )


@pytest.mark.parametrize("second", [0.5, 0.3])
def test_stages_out_of_order_are_told_in_one_sentence(staged, second):
    config = staged({"a": 1}, [StageConfig(0.5), StageConfig(second)])
    check_refusal(config, [f"data.stages[1].start={second}", "in order"])


def test_a_stage_of_another_source_is_told_in_one_sentence(staged):
    config = staged({"prose": 1, "code": 1}, [StageConfig(0.5, {"cod": 1})])
    check_refusal(config, ["data.stages[0].weights.cod", "did you mean 'code'?"], punctuation=False)


@pytest.mark.parametrize("start", [0.001, 0.999])
def test_a_stage_without_a_step_is_told_in_one_sentence(staged, start):
    check_refusal(
        staged({"a": 1}, [StageConfig(start)]), [f"data.stages[0].start={start}", "of 50", "more tokens"]
    )


def test_stages_without_the_budget_of_the_run_are_told_in_one_sentence(staged):
    for horizon in (None, 7):
        config = dataclasses.replace(staged({"a": 1}, [StageConfig(0.5)]), horizon=horizon)
        said = [f"data.horizon={'null' if horizon is None else 7}", "data.horizon='${scale.tokens}'"]
        check_refusal(config, said)


def test_a_source_that_a_run_would_never_reach_is_told_in_one_sentence(configure, staged):
    """In the period there is place for it, in this run or stage there is none."""
    check_refusal(configure({"a": 0.002, "b": 1}), ["data.sources.a.weight=0.002", "300 sequences"])
    late = staged({"a": 1, "b": 1}, [StageConfig(0.9, {"b": 60})])
    check_refusal(late, ["data.sources.a.weight=1", "30 sequences"])


def described(config: DataConfig) -> None:
    describe_data(config, 160)
    describe_mix(config, SCALE)


def check_refusal(config: DataConfig, said: list[str], punctuation: bool = True) -> None:
    with pytest.raises(UserError) as error:
        described(config)
    if punctuation:
        check_sentence(str(error.value), said)
    assert all(words in str(error.value) for words in said)


def mix_of(variant: str, data: str) -> list[tuple[int, dict[str, int]]]:
    config = compose([f"variant={variant}", f"data={data}"])
    assert config.variant.name == variant
    assert config.variant.touches == ["data"]
    return describe_mix(config.data, config.scale).mixes


@pytest.mark.parametrize("data", ["prose_code", "pack"])
def test_the_shipped_mixes_are_what_they_say(data):
    ((_, even),) = mix_of("mix_even", data)
    ((_, code),) = mix_of("mix_code", data)
    ((_, none),) = mix_of("mix_no_code", data)
    (first, before), (step, after) = mix_of("mix_late_code", data)
    assert len({*even.values()}) == 1
    assert code["code"] == pytest.approx(3 * code["prose"], abs=2)
    assert none["code"] == 0 < min(count for name, count in none.items() if name != "code")
    assert (first, before, step, after) == (0, even, 104, code)
