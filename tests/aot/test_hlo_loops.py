"""Traps in the text of loops, branches and calls, each in a few lines of it, with the FLOPs by hand."""

import pytest

from harness.aot.hlo import read_hlo
from tests.aot.programs import DOT, MATRIX, ONCE, program


def loop(start, condition, change, *, outside="", note=""):
    """A while whose state is (counter, matrix, limit), one DOT a turn; the limit 12 comes from outside."""
    before = f"""%body (s: (s32[], f32[8,8], s32[])) -> (s32[], f32[8,8], s32[]) {{
  %s = (s32[]{{:T(128)}}, f32[8,8]{{1,0}}, s32[]) parameter(0)
  %i = s32[]{{:T(128)}} get-tuple-element(%s), index=0
  %x = f32[8,8]{{1,0}} get-tuple-element(%s), index=1
  %n = s32[] get-tuple-element(%s), index=2
  %y = {DOT}
  {change}
  ROOT %t = (s32[]{{:T(128)}}, f32[8,8]{{1,0}}, s32[]) tuple(%j, %y, %n)
}}

%plus_two (a: s32[]) -> s32[] {{
  %a = s32[] parameter(0)
  %c = s32[] constant(2)
  ROOT %b = s32[] add(%a, %c)
}}

%below (a: s32[], b: s32[]) -> pred[] {{
  %b = s32[] parameter(1)
  %a = s32[] parameter(0)
  %less = pred[] compare(%a, %b), direction=LT
  %always = pred[] constant(true)
  ROOT %c = pred[] and(%less, %always)
}}

%not_above (a: s32[], b: s32[]) -> pred[] {{
  %a = s32[] parameter(0)
  %b = s32[] parameter(1)
  %above = pred[] compare(%a, %b), direction=GT
  ROOT %c = pred[] not(%above)
}}

%condition (s: (s32[], f32[8,8], s32[])) -> pred[] {{
  %s = (s32[]{{:T(128)}}, f32[8,8]{{1,0}}, s32[]) parameter(0)
  %i = s32[]{{:T(128)}} get-tuple-element(%s), index=0
  %n = s32[] get-tuple-element(%s), index=2
  %five = s32[]{{:T(128)}} constant(5)
  ROOT %more = pred[]{{:T(512)}} {condition}
}}
"""
    return program(
        f"%start = s32[] constant({start})",
        "%first = s32[]{:T(128)} copy(%start)",
        "%limit = s32[] constant(12)",
        "%state = (s32[], f32[8,8]{1,0}, s32[]) tuple(%first, %x, %limit)",
        f"%w = (s32[], f32[8,8]{{1,0}}, s32[]) while(%state), condition=%condition, body=%body{note}",
        "ROOT %r = f32[8,8]{1,0} get-tuple-element(%w), index=1",
        before=before + outside,
    )


ONE, TWO = "%o = s32[] constant(1)\n", "%o = s32[] constant(2)\n"
LOOPS = {
    "one by one": (0, "compare(%i, %five), direction=LT", ONE + "  %j = s32[] add(%i, %o)", 5),
    "the limit on the left": (0, "compare(%five, %i), direction=GT", ONE + "  %j = s32[] add(%o, %i)", 5),
    "up to and with": (1, "compare(%i, %five), direction=LE", ONE + "  %j = s32[] add(%i, %o)", 5),
    "by two, not ending on the limit": (
        0,
        "compare(%i, %five), direction=LT",
        TWO + "  %j = s32[] add(%i, %o)",
        3,
    ),
    "until equal": (1, "compare(%i, %five), direction=NE", TWO + "  %j = s32[] add(%i, %o)", 2),
    "downwards": (9, "compare(%i, %five), direction=GE", TWO + "  %j = s32[] subtract(%i, %o)", 3),
    "never": (7, "compare(%i, %five), direction=LT", ONE + "  %j = s32[] add(%i, %o)", 0),
    "behind fusions": (
        0,
        "fusion(%i, %n), kind=kLoop, calls=%below",
        "%j = s32[] fusion(%i), kind=kLoop, calls=%plus_two",
        6,
    ),
    "not above": (
        0,
        "fusion(%i, %five), kind=kLoop, calls=%not_above",
        TWO + "  %j = s32[] add(%i, %o)",
        3,
    ),
    "doubling": (1, "compare(%i, %n), direction=LT", TWO + "  %j = s32[] multiply(%i, %o)", 4),
}


@pytest.mark.parametrize("trap", LOOPS)
def test_loops_whose_length_nobody_noted(trap):
    start, condition, change, turns = LOOPS[trap]
    counts = read_hlo(loop(start, condition, change))
    assert (counts.dot_flops, counts.unknown_loops) == (turns * ONCE, ())


def test_a_note_of_the_length_goes_before():
    note = ', backend_config={"known_init_step":{"init":"0","step":"1"},"known_trip_count":{"n":"7"}}'
    _, condition, change, _ = LOOPS["one by one"]
    assert read_hlo(loop(0, condition, change, note=note)).dot_flops == 7 * ONCE


UNKNOWN = {
    "by data": '%p = s32[] custom-call(%y), custom_call_target="AllocateBuffer"\n  %j = s32[] add(%i, %p)',
    "for ever": "%j = s32[] copy(%i)",
}


@pytest.mark.parametrize("trap", UNKNOWN)
def test_a_loop_that_cannot_be_told_is_one_turn_and_named(trap):
    counts = read_hlo(loop(0, "compare(%i, %five), direction=LT", UNKNOWN[trap]))
    assert (counts.dot_flops, counts.unknown_loops) == (ONCE, ("w",))


def test_a_counter_from_too_far_away_is_named_too():
    _, condition, change, turns = LOOPS["one by one"]
    text = loop(0, condition, change)
    copies = "".join(f"  %first.{i + 1} = s32[] copy(%first.{i})\n" for i in range(3000))
    far = text.replace("tuple(%first,", "tuple(%first.3000,").replace(
        "  %limit", "  %first.0 = s32[] copy(%first)\n" + copies + "  %limit"
    )
    assert read_hlo(text).dot_flops == turns * ONCE
    counts = read_hlo(far)
    assert (counts.dot_flops, counts.unknown_loops) == (ONCE, ("w",))


def in_a_loop(inner_limit, limit="%n"):
    """A loop of two turns around one to which it gives a limit; `limit` is what it hands on as its own."""
    state = "(s32[], f32[8,8], s32[])"
    parts = f"""  %s = {state} parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %x = f32[8,8] get-tuple-element(%s), index=1
  %n = s32[] get-tuple-element(%s), index=2
  %zero = s32[] constant(0)
  %one = s32[] constant(1)
  %two = s32[] constant(2)"""
    before = f"""%inner (s: {state}) -> {state} {{
{parts}
  %j = s32[] add(%i, %one)
  %y = {DOT}
  ROOT %t = {state} tuple(%j, %y, %n)
}}

%below_n (s: {state}) -> pred[] {{
{parts}
  ROOT %c = pred[] compare(%i, %n), direction=LT
}}

%outer (s: {state}) -> {state} {{
{parts}
  %given = {state} tuple(%zero, %x, {inner_limit})
  %w = {state} while(%given), condition=%below_n, body=%inner
  %same = s32[] get-tuple-element(%w), index=2
  %y = f32[8,8] get-tuple-element(%w), index=1
  %j = s32[] add(%i, %one)
  ROOT %t = {state} tuple(%j, %y, {limit})
}}

%below_two (s: {state}) -> pred[] {{
{parts}
  ROOT %c = pred[] compare(%i, %two), direction=LT
}}"""
    return program(
        "%zero = s32[] constant(0)",
        "%three = s32[] constant(3)",
        f"%given = {state} tuple(%zero, %x, %three)",
        f"%w = {state} while(%given), condition=%below_two, body=%outer",
        "ROOT %r = f32[8,8] get-tuple-element(%w), index=1",
        before=before,
    )


def test_loops_in_loops_multiply_and_see_what_the_outer_one_never_changes():
    """A limit of 3 that travels through the state of the outer loop."""
    counts = read_hlo(in_a_loop("%n"))
    assert (counts.dot_flops, counts.unknown_loops) == (2 * 3 * ONCE, ())


def test_what_a_loop_never_changes_is_known_behind_it():
    counts = read_hlo(in_a_loop("%n", limit="%same"))
    assert (counts.dot_flops, counts.unknown_loops) == (2 * 3 * ONCE, ())


def test_a_limit_that_the_outer_loop_changes_is_not_known():
    counts = read_hlo(in_a_loop("%i"))
    assert (counts.dot_flops, counts.unknown_loops) == (2 * ONCE, ("w",))


BRANCHES = f"""%twice (x: f32[8,8]) -> f32[8,8] {{
  %x = {MATRIX} parameter(0)
  %z = {DOT}
  ROOT %y = {DOT}
}}

%never (x: f32[8,8]) -> f32[8,8] {{
  ROOT %x = {MATRIX} parameter(0)
}}

%once (x: f32[8,8]) -> f32[8,8] {{
  %x = {MATRIX} parameter(0)
  ROOT %y = {DOT}
}}"""


def test_of_branches_the_largest():
    lines = (
        "%p = pred[] constant(true)",
        f"%a = {MATRIX} conditional(%p, %x, %x), true_computation=%once, false_computation=%twice",
        "%i = s32[] constant(0)",
        f"ROOT %b = {MATRIX} conditional(%i, %x, %x, %x), branch_computations={{%never, %once, %never}}",
    )
    assert read_hlo(program(*lines, before=BRANCHES)).dot_flops == 3 * ONCE


def test_calls_and_fusions_are_entered_each_time():
    lines = (
        f"%a = {MATRIX} call(%x), to_apply=%twice",
        f"%b = {MATRIX} fusion(%a), kind=kCustom, calls=%once,"
        ' backend_config={"fusion_config":{"kind":"__triton_nested_gemm_fusion"}}',
        f"ROOT %c = {MATRIX} fusion(%b), kind=kCustom, calls=%once,"
        ' backend_config={"fusion_config":{"kind":"__ynn_fusion"}}',
    )
    assert read_hlo(program(*lines, before=BRANCHES)).dot_flops == 4 * ONCE
