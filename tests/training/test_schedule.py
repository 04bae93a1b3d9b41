import itertools

import pytest

from harness.config.compose import compose
from harness.core.errors import UserError
from harness.training.schedule import branch_segments, learning_rate, main_segment

CONFIG = compose(["scale.tokens=2048000", "scale.batch=16"])


def rates(course, schedule=CONFIG.schedule):
    return [learning_rate(schedule, course, step) for step in range(course.first, course.last)]


def test_wsd_rises_holds_and_falls_to_almost_zero():
    course = main_segment(CONFIG)
    values = rates(course)
    assert course.last == 1000
    assert values[:50] == [(i + 1) / 50 for i in range(50)]
    assert set(values[50:850]) == {1.0}
    assert all(later < earlier for earlier, later in itertools.pairwise(values[849:]))
    assert 0 < values[-1] < 0.01


def test_a_branch_is_what_a_shorter_budget_would_have_been():
    (branch,) = branch_segments(CONFIG)
    shorter = compose(["scale.tokens=1024000", "scale.batch=16", "schedule.branches=[]"])
    course = main_segment(shorter)
    assert (branch.last, branch.cooldown) == (course.last, course.cooldown)
    assert branch.first == course.last - course.cooldown
    assert rates(branch) == rates(course)[branch.first :]


def test_cosine_ends_at_its_floor_and_constant_never_falls():
    cosine = compose(["schedule=cosine", "scale.tokens=2048000", "scale.batch=16"])
    assert rates(main_segment(cosine), cosine.schedule)[-1] == pytest.approx(0.1, abs=1e-4)
    constant = compose(["schedule=constant", "scale.tokens=2048000", "scale.batch=16"])
    assert set(rates(main_segment(constant), constant.schedule)[50:]) == {1.0}


def test_a_warm_up_in_tokens_ends_after_so_many():
    tokens = ["schedule.warmup=null", "schedule.warmup_tokens=204800"]
    segment = main_segment(compose(["scale.tokens=2048000", "scale.batch=16", *tokens]))
    assert rates(segment)[98:101] == [0.99, 1.0, 1.0]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["schedule.warmup=null", "schedule.warmup_tokens=60000"],
            ["schedule.warmup_tokens=60000", "122 steps"],
        ),
        (["schedule.name=wdsd"], ["schedule.name=wdsd", "wsd"]),
        (["schedule=cosine", "schedule.branches=[0.5]"], ["schedule.branches", "wsd"]),
        (["schedule.branches=[0.95]"], ["schedule.branches", "0.95"]),
        (["schedule.warmup=0.9", "schedule.cooldown=0.3"], ["0.9", "0.3"]),
    ],
)
def test_each_mistake_gets_one_sentence(overrides, words):
    config = compose(overrides)
    with pytest.raises(UserError) as error:
        branch_segments(config)
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)
