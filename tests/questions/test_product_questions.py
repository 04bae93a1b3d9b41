"""Number formats of the product questions against those of ml_dtypes, value by value."""

import ml_dtypes
import numpy as np
import pytest

from experiments.questions.product import int6, mxfp8, nvfp4, row_scaled_fp8, ternary

X = (np.random.default_rng(0).normal(size=(6, 70)) * 10.0 ** np.arange(-3, 3)[:, None]).astype(np.float32)


def in_blocks(x: np.ndarray, size: int) -> list[np.ndarray]:
    return [x[row, start : start + size] for row in range(len(x)) for start in range(0, x.shape[1], size)]


@pytest.mark.parametrize("axis", [0, 1])
def test_mxfp8_shares_a_power_of_two_in_each_block(axis):
    x = X if axis else np.ascontiguousarray(X.T)
    found = np.moveaxis(np.asarray(mxfp8.rounded(x, axis)), axis, -1)
    for block, ours in zip(in_blocks(X, 32), in_blocks(found, 32), strict=True):
        scale = 2.0 ** (np.floor(np.log2(np.abs(block).max())) - 8)
        expected = (
            np.clip(block / scale, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * scale
        )
        np.testing.assert_array_equal(ours, expected)


def test_nvfp4_values_are_those_of_e2m1():
    values = np.linspace(-6, 6, 2001).astype(np.float32)
    expected = values.astype(ml_dtypes.float4_e2m1fn).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(nvfp4.e2m1(values)), expected)


def test_nvfp4_shares_a_factor_of_8_bits_in_each_block():
    found = np.asarray(nvfp4.rounded(X, 1))
    whole = np.float32(np.abs(X).max() / (6 * 448))
    for block, ours in zip(in_blocks(X, 16), in_blocks(found, 16), strict=True):
        factor = (np.abs(block).max() / (6 * whole)).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
        scale = factor * whole
        expected = (block / scale).astype(ml_dtypes.float4_e2m1fn).astype(np.float32) * scale if factor else 0
        np.testing.assert_allclose(ours, expected + 0 * block, rtol=1e-6)


def test_rows_have_factors_of_their_own():
    found = np.asarray(row_scaled_fp8.factor(X, 1))
    scale = np.abs(X).max(axis=1, keepdims=True) / np.float32(448)
    expected = (X / scale).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * scale
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_ternary_and_int6_have_three_and_63_values():
    three = np.asarray(ternary.ternary(X)) / np.abs(X).mean()
    np.testing.assert_allclose(np.unique(np.round(three, 4)), [-1, 0, 1])
    levels = np.asarray(int6.int6(X)) / (np.abs(X).max(axis=0) / 31)
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)
    assert np.abs(np.round(levels)).max() == 31
    assert np.abs(np.asarray(int6.int6(X)) - X).max() <= np.abs(X).max() / 62 + 1e-6
