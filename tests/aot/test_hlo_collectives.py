"""Traps in the text of collective operations, each in a few lines of it, with the bytes by hand."""

import pytest

from harness.aot.hlo import read_hlo
from harness.core.errors import UserError
from tests.aot.programs import MATRIX, program


def received(*lines, **around):
    return read_hlo(program(*lines, **around)).collective_bytes


GROUPS = {
    "replica_groups={{0,1},{2,3},{4,5},{6,7}}": 2,
    "replica_groups={{0,1,2},{3,4,5,6,7}}": 5,
    "replica_groups={{0,1,2,3,4,5,6,7}}": 8,
    "replica_groups=[2,4]<=[8]": 4,
    "replica_groups=[4,2]<=[2,2,2]T(1,0,2)": 2,
    "replica_groups=[4,2]<=[2,4]T(1,0)": 2,
    "replica_groups=mesh['data'=2,'x'=4] {'x'}": 4,
    "replica_groups=mesh['a'=2,'b'=2,'c'=2], device_ids=([2,2,2]T(1,0,2)) {'a','c'}": 4,
    "replica_groups=mesh['a'=8] {'a':(2)2}": 2,
    "replica_groups={}": 8,
    "channel_id=1": 8,
}


@pytest.mark.parametrize("spelling", GROUPS)
def test_groups_in_every_spelling(spelling):
    n = GROUPS[spelling]
    line = f"ROOT %sum = {MATRIX} all-reduce(%x), channel_id=1, {spelling}, to_apply=%add"
    assert received(line) == {"all-reduce": 2 * (n - 1) / n * 256}


def test_a_group_in_a_spelling_of_the_future_is_refused():
    with pytest.raises(UserError, match=r"replica_groups=torus\(2\)"):
        received(f"ROOT %sum = {MATRIX} all-reduce(%x), replica_groups=torus(2), to_apply=%add")


FOUR = "replica_groups={{0,1,2,3},{4,5,6,7}}"
ASYNC = {
    "a gather's start answers with operand and result": (
        f"%s = (f32[8,8]{{1,0}}, f32[32,8]{{1,0}}) all-gather-start(%x), {FOUR}, dimensions={{0}}",
        "ROOT %d = f32[32,8]{1,0} all-gather-done(%s)",
        {"all-gather": 3 * 256},
    ),
    "several gathers in one": (
        "%s = ((f32[8,8]{1,0}, f32[8,8]{1,0}), (f32[32,8]{1,0}, f32[32,8]{1,0}))"
        f" all-gather-start(%x, /*index=1*/%x), {FOUR}, dimensions={{0}}",
        "ROOT %d = (f32[32,8]{1,0}, f32[32,8]{1,0}) all-gather-done(%s)",
        {"all-gather": 2 * 3 * 256},
    ),
    "a scatter's start": (
        f"%s = ((f32[8,8]{{1,0}}), f32[2,8]{{1,0}}) reduce-scatter-start(%x), {FOUR}, dimensions={{0}}",
        "ROOT %d = f32[2,8]{1,0} reduce-scatter-done(%s)",
        {"reduce-scatter": 3 / 4 * 256},
    ),
    "a sum's start answers with the result alone": (
        f"%s = f32[8,8]{{1,0}} all-reduce-start(%x), {FOUR}, to_apply=%add",
        "ROOT %d = f32[8,8]{1,0} all-reduce-done(%s)",
        {"all-reduce": 2 * 3 / 4 * 256},
    ),
    "a permutation's start carries contexts": (
        "%s = (f32[8,8]{1,0}, f32[8,8]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%x),"
        " channel_id=3, source_target_pairs={{0,1},{1,0}}",
        "ROOT %d = f32[8,8]{1,0} collective-permute-done(%s)",
        {"collective-permute": 256},
    ),
    "a permutation onto itself moves nothing": (
        f"%s = {MATRIX} copy(%x)",
        f"ROOT %d = {MATRIX} collective-permute(%s), source_target_pairs={{{{0,0}},{{1,1}}}}",
        {"collective-permute": 0},
    ),
    "an exchange as a tuple of pieces": (
        "%s = (f32[8,8], f32[8,8], f32[8,8], f32[8,8])"
        f" all-to-all(%x, %x, %x, /*index=3*/%x), channel_id=1, {FOUR}",
        "ROOT %d = f32[8,8]{1,0} get-tuple-element(%s), index=0",
        {"all-to-all": 3 / 4 * 4 * 256},
    ),
    "operands written with their shapes": (
        f"%s = ({MATRIX}, f32[32,8]{{1,0}}) all-gather-start(f32[8,8]{{1,0:T(8,128)(2,1)}} %x), {FOUR}",
        "ROOT %d = f32[32,8]{1,0} all-gather-done((f32[8,8]{1,0}, f32[32,8]{1,0}) %s)",
        {"all-gather": 3 * 256},
    ),
    "a broadcast": (
        f"%s = {MATRIX} collective-broadcast(%x), {FOUR}",
        f"ROOT %d = {MATRIX} copy(%s)",
        {"collective-broadcast": 256},
    ),
}


@pytest.mark.parametrize("trap", ASYNC)
def test_starts_and_tuples(trap):
    *lines, expected = ASYNC[trap]
    assert received(*lines) == expected


def test_an_asynchronous_start_of_a_computation_is_entered_once():
    wrapped = f"""%wrapped (p: f32[8,8]) -> f32[2,8] {{
  %p = f32[8,8]{{1,0}} parameter(0)
  ROOT %rs = f32[2,8]{{1,0}} reduce-scatter(%p), {FOUR}, dimensions={{0}}, to_apply=%add
}}"""
    lines = (
        "%s = ((f32[8,8]{1,0}), f32[2,8]{1,0}, u32[]) async-start(%x), calls=%wrapped",
        "%u = ((f32[8,8]{1,0}), f32[2,8]{1,0}, u32[]) async-update(%s), calls=%wrapped",
        "ROOT %d = f32[2,8]{1,0} async-done(%u), calls=%wrapped",
    )
    assert received(*lines, before=wrapped) == {"reduce-scatter": 3 / 4 * 256}


def test_a_sum_fused_with_the_slice_that_is_kept_is_a_scatter():
    fused = f"""%all-reduce-scatter.1 (p: f32[8,8]) -> f32[2,8] {{
  %p = f32[8,8]{{1,0}} parameter(0)
  %sum = f32[8,8]{{1,0}} all-reduce(%p), channel_id=1, {FOUR}, to_apply=%add
  %where = u32[] partition-id()
  %zero = u32[] constant(0)
  ROOT %kept = f32[2,8]{{1,0}} dynamic-slice(%sum, %where, %zero), dynamic_slice_sizes={{2,8}}
}}"""
    line = "ROOT %f = f32[2,8]{1,0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1"
    assert received(line, before=fused) == {"reduce-scatter": 3 / 4 * 256}


def test_a_sum_and_a_slice_that_are_not_fused_stay_a_sum():
    apart = f"""%apart (p: f32[8,8]) -> f32[2,8] {{
  %p = f32[8,8]{{1,0}} parameter(0)
  %sum = f32[8,8]{{1,0}} all-reduce(%p), channel_id=1, {FOUR}, to_apply=%add
  %zero = u32[] constant(0)
  ROOT %kept = f32[2,8]{{1,0}} dynamic-slice(%sum, %zero, %zero), dynamic_slice_sizes={{2,8}}
}}"""
    line = "ROOT %f = f32[2,8]{1,0} call(%x), to_apply=%apart"
    assert received(line, before=apart) == {"all-reduce": 2 * 3 / 4 * 256}


def test_a_sum_that_is_kept_beside_its_slice_stays_a_sum():
    fused = f"""%both (p: f32[8,8]) -> (f32[8,8], f32[2,8]) {{
  %p = f32[8,8]{{1,0}} parameter(0)
  %sum = f32[8,8]{{1,0}} all-reduce(%p), channel_id=1, {FOUR}, to_apply=%add
  %zero = u32[] constant(0)
  %some = f32[2,8]{{1,0}} dynamic-slice(%sum, %zero, %zero), dynamic_slice_sizes={{2,8}}
  ROOT %t = (f32[8,8]{{1,0}}, f32[2,8]{{1,0}}) tuple(%sum, %some)
}}"""
    line = "ROOT %f = (f32[8,8]{1,0}, f32[2,8]{1,0}) fusion(%x), kind=kCustom, calls=%both"
    assert received(line, before=fused) == {"all-reduce": 2 * 3 / 4 * 256}


SIZES = {
    "pred": 1,
    "bf16": 2,
    "f8e4m3fn": 1,
    "s4": 0.5,
    "f4e2m1fn": 0.5,
    "f64": 8,
    "c64": 8,
    "s32": 4,
    "u8": 1,
}


@pytest.mark.parametrize("element", SIZES)
def test_sizes_of_elements_under_any_layout(element):
    lines = (
        f'%y = {element}[16,128]{{1,0:T(8,128)(4,1)S(1)}} custom-call(), custom_call_target="AllocateBuffer"',
        f"ROOT %g = {element}[64,128]{{1,0:T(8,128)(4,1)}} all-gather(%y), {FOUR}, dimensions={{0}}",
    )
    assert received(*lines) == {"all-gather": 3 * 16 * 128 * SIZES[element]}


def test_an_element_of_the_future_is_refused():
    with pytest.raises(UserError, match="posit"):
        received("%y = posit[8]{0} copy(%x)", f"ROOT %g = posit[32]{{0}} all-gather(%y), {FOUR}")
