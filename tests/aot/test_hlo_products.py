"""Traps in the text of matrix products, each in a few lines of it, with the FLOPs by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.aot.hlo import read_hlo
from harness.core.errors import UserError
from tests.aot.programs import MATRIX, program


def test_batch_dimensions_of_a_dot():
    lines = (
        "%a = bf16[3,4,8,16]{3,2,1,0} broadcast(%x)",
        "%b = bf16[3,4,16,32]{3,2,1,0} broadcast(%x)",
        "ROOT %c = bf16[3,4,8,32]{3,2,1,0} dot(%a, %b), lhs_batch_dims={0,1}, lhs_contracting_dims={3},"
        " rhs_batch_dims={0,1}, rhs_contracting_dims={2}",
    )
    assert read_hlo(program(*lines)).dot_flops == 2 * 3 * 4 * 8 * 32 * 16


@pytest.mark.parametrize("target", ["__cublas$gemm", "__cublas$lt$matmul", "__cublas$lt$matmul$f8"])
def test_library_products_with_workspace(target):
    lines = (
        "%a = f32[5,8,16]{2,1,0} broadcast(%x)",
        "%b = f32[5,16,32]{2,1,0} broadcast(%x)",
        f'%c = (f32[5,8,32]{{2,1,0}}, s8[4194304]{{0}}) custom-call(%a, %b), custom_call_target="{target}",'
        ' backend_config={"gemm_backend_config":{"alpha_real":1,"dot_dimension_numbers":'
        '{"lhs_contracting_dimensions":["2"],"rhs_contracting_dimensions":["1"],'
        '"lhs_batch_dimensions":["0"],"rhs_batch_dimensions":["0"]}}}',
        "ROOT %d = f32[5,8,32]{2,1,0} get-tuple-element(%c), index=0",
    )
    counts = read_hlo(program(*lines))
    assert (counts.dot_flops, counts.unread_kernels) == (2 * 5 * 8 * 32 * 16, ())


@pytest.mark.parametrize("kind", ["ragged-dot", "scaled-dot"])
def test_a_product_of_a_kind_that_is_not_counted_is_named(kind):
    counts = read_hlo(program(f"ROOT %k = {MATRIX} {kind}(%x, %x, %x), lhs_contracting_dims={{1}}"))
    assert (counts.dot_flops, counts.unread_kernels) == (0, (kind,))


def test_a_kernel_that_cannot_be_read_is_named():
    line = (
        f'ROOT %k = {MATRIX} custom-call(%x), custom_call_target="tpu_custom_call", backend_config="TUzvUg"'
    )
    assert read_hlo(program(line)).unread_kernels == ("tpu_custom_call",)


def convolved(inputs, kernel, result, window, labels, groups=""):
    """FLOPs of a convolution of arrays of these dimensions."""

    def array(sizes):
        return f"bf16[{','.join(map(str, sizes))}]"

    return read_hlo(
        program(
            f"%a = {array(inputs)} broadcast(%x)",
            f"%b = {array(kernel)} broadcast(%x)",
            f"ROOT %c = {array(result)} convolution(%a, %b), {window}dim_labels={labels}{groups}",
        )
    ).dot_flops


def test_a_dot_as_a_convolution_without_window():
    assert convolved((16, 256), (64, 256), (16, 64), "", "bf_oi->bf") == 2 * 16 * 64 * 256


def test_a_convolution_in_groups():
    """Eight input features in four groups; then four images in two groups, each with its own kernels."""
    window = "window={size=3 pad=1_1}, "
    by_feature = convolved(
        (2, 10, 8), (3, 2, 12), (2, 10, 12), window, "b0f_0io->b0f", ", feature_group_count=4"
    )
    assert by_feature == 2 * (2 * 12) * 2 * (10 * 3 - 2)
    by_batch = convolved((4, 10, 8), (3, 8, 12), (2, 10, 12), window, "b0f_0io->b0f", ", batch_group_count=2")
    assert by_batch == 2 * (2 * 12) * 8 * (10 * 3 - 2)


SMALL = st.integers(1, 6)


@given(SMALL, SMALL, SMALL, SMALL, SMALL, st.integers(-3, 6), st.integers(-3, 6))
def test_taps_that_meet_an_element(size, kernel, stride, hole, dilation, low, high):
    """Against the definition: spread the input out, pad or cut it, slide the kernel over it."""
    spread = [int(place % hole == 0) for place in range((size - 1) * hole + 1)]
    padded = [0] * low + spread + [0] * high if low >= 0 else spread[-low:] + [0] * high
    padded = padded[: len(padded) + min(high, 0)]
    reach = (kernel - 1) * dilation + 1
    starts = range(0, len(padded) - reach + 1, stride)
    if not starts:
        return
    met = sum(padded[start + k * dilation] for start in starts for k in range(kernel))
    window = (
        f"window={{size={kernel} stride={stride} pad={low}_{high} lhs_dilate={hole} rhs_dilate={dilation}}}, "
    )
    assert convolved((1, size, 1), (kernel, 1, 1), (1, len(starts), 1), window, "b0f_0io->b0f") == 2 * met


def test_text_that_is_no_program():
    with pytest.raises(UserError, match="ENTRY"):
        read_hlo("module @jit_step { func.func public @main() }")
