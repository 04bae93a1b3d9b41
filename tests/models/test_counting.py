"""The walk over a jaxpr, against closed forms and what XLA says of the same program."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl

from harness.core.errors import UserError
from harness.models.counting.jaxpr import count_function, count_function_flops

SQUARE = jax.ShapeDtypeStruct((3, 3), jnp.float32)
PRODUCT = 2 * 27


def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def xla_flops(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


def test_products_with_weights_are_told_from_products_between_activations():
    counted = count_function(
        lambda a, b, c: ((a @ b).reshape(2, 3, 4) @ c).sum(), array(6, 5), array(5, 4), array(2, 4, 7)
    )
    assert (counted.weights, counted.activations) == (2 * 6 * 5 * 4, 2 * 2 * 3 * 4 * 7)


def test_a_product_whose_result_is_unused_is_not_counted():
    assert count_function_flops(lambda a: (a @ a, a)[1], SQUARE) == 0


CONVOLUTIONS = {
    "plain": ((2, 9, 4), (3, 4, 5), {}, 2 * (2 * 7 * 5) * 3 * 4),
    "depthwise": ((2, 9, 4), (3, 1, 4), {"feature_group_count": 4}, 2 * (2 * 7 * 4) * 3),
    "grouped": ((2, 9, 4), (3, 2, 6), {"feature_group_count": 2}, 2 * (2 * 7 * 6) * 3 * 2),
    "strided": ((2, 9, 4), (3, 4, 5), {"window_strides": (2,)}, 2 * (2 * 4 * 5) * 3 * 4),
    "dilated": ((2, 9, 4), (3, 4, 5), {"rhs_dilation": (2,)}, 2 * (2 * 5 * 5) * 3 * 4),
}


@pytest.mark.parametrize(("x", "kernel", "options", "flops"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolution(x, kernel, options, flops):
    options = {"window_strides": (1,), "padding": "VALID"} | options
    convolve = partial(jax.lax.conv_general_dilated, dimension_numbers=("NTC", "TIO", "NTC"), **options)
    assert count_function_flops(convolve, array(*x), array(*kernel)) == flops
    assert xla_flops(convolve, array(*x), array(*kernel)) == flops
    gradient = jax.grad(lambda kernel, x: convolve(x, kernel).sum())
    assert count_function_flops(gradient, array(*kernel), array(*x)) == flops


def test_the_input_of_a_strided_convolution_is_dilated_with_zeros_that_are_no_factors():
    convolve = partial(
        jax.lax.conv_general_dilated,
        window_strides=(2,),
        padding="VALID",
        dimension_numbers=("NTC", "TIO", "NTC"),
    )
    gradient = jax.grad(lambda x, kernel: convolve(x, kernel).sum())
    assert count_function_flops(gradient, array(2, 9, 4), array(3, 4, 5)) == 2 * (2 * 9 * 4) * 3 * 5 // 2


@pytest.mark.parametrize(("rows", "inputs", "outputs", "groups"), [(8, 4, 5, 3)])
def test_a_ragged_product_multiplies_each_row_once_and_so_does_its_gradient(rows, inputs, outputs, groups):
    shapes = array(rows, inputs), array(groups, inputs, outputs), array(groups, dtype=jnp.int32)
    once = 2 * rows * inputs * outputs
    assert count_function_flops(jax.lax.ragged_dot, *shapes) == once
    both = jax.value_and_grad(lambda x, w, sizes: jax.lax.ragged_dot(x, w, sizes).sum(), (0, 1))
    assert count_function_flops(both, *shapes) == 3 * once


def power(a, start, end, step=1, turn=lambda c, a: c @ a):
    def body(carried):
        return carried[0] + step, turn(carried[1], a)

    return jax.lax.while_loop(lambda carried: carried[0] < end, body, (start, a))[1]


def count_down(a, start):
    def holds(carried):
        return jax.lax.le(jnp.int32(0), carried[0])

    return jax.lax.while_loop(holds, lambda carried: (carried[0] - 1, carried[1] @ a), (start, a))[1]


LOOPS = {
    "scan": (lambda a: jax.lax.scan(lambda c, _: (c @ a, None), a, length=5)[0], 5),
    "fori": (lambda a: jax.lax.fori_loop(0, 5, lambda _, c: c @ a, a), 5),
    "fori, bounds as arrays": (
        lambda a: jax.lax.fori_loop(jnp.int32(2), jnp.int32(5), lambda _, c: c @ a, a),
        3,
    ),
    "fori, a bound computed": (
        lambda a: jax.jit(lambda n: jax.lax.fori_loop(n - 5, 2 * n, lambda _, c: c @ a, a))(jnp.int32(5)),
        10,
    ),
    "by twos": (lambda a: power(a, jnp.int32(1), 8, 2), 4),
    "no turn": (lambda a: power(a, jnp.int32(9), 8), 0),
    "in a scan": (
        lambda a: jax.lax.scan(lambda c, _: (power(c, jnp.int32(0), jnp.int32(4)), None), a, length=3)[0],
        12,
    ),
    "no product needs no turns": (lambda a: jax.lax.while_loop(lambda c: c[0, 0] < 1, lambda c: c + 1, a), 0),
    "downwards": (lambda a: count_down(a, jnp.int32(4)), 5),
}


@pytest.mark.parametrize(("function", "turns"), LOOPS.values(), ids=LOOPS)
def test_loops_multiply_by_their_turns(function, turns):
    assert count_function_flops(function, SQUARE) == turns * PRODUCT


@pytest.mark.parametrize(
    "function",
    [
        lambda a, n: jax.lax.fori_loop(0, n, lambda _, c: c @ a, a),
        lambda a, n: jax.lax.while_loop(lambda c: c[0, 0] < n, lambda c: c @ a, a),
        lambda a, n: power(a, jnp.int32(1), 8, n),
    ],
    ids=["its bound is an argument", "it ends by what it computes", "its step is an argument"],
)
def test_a_loop_whose_turns_are_not_known_is_refused_in_one_sentence(function):
    with pytest.raises(UserError, match=r"number of turns is not known.*jax\.lax\.scan"):
        count_function_flops(function, SQUARE, array(dtype=jnp.int32))


def test_a_loop_within_a_loop_that_counts_by_the_outer_turn_is_refused():
    def triangle(a):
        return jax.lax.fori_loop(0, 4, lambda i, c: jax.lax.fori_loop(0, i, lambda _, d: d @ a, c), a)

    with pytest.raises(UserError, match="number of turns"):
        count_function_flops(triangle, SQUARE)


def test_the_largest_branch_of_a_cond_is_counted_with_a_note():
    def choose(twice, a, p):
        return jax.lax.cond(p, lambda a: a @ a, lambda a: (a @ a) @ a if twice else a.T @ a, a)

    flag = array(dtype=jnp.bool_)
    even, uneven = (count_function(partial(choose, twice), SQUARE, flag) for twice in (False, True))
    assert (even.total, even.uneven_branches) == (PRODUCT, 0)
    assert (uneven.total, uneven.uneven_branches) == (2 * PRODUCT, 1)


def test_products_in_custom_gradients_are_counted_forward_and_backward():
    @jax.custom_vjp
    def by_vjp(a, b):
        return a @ b

    by_vjp.defvjp(
        lambda a, b: (a @ b, (a, b)), lambda saved, d: (d @ saved[1].T, (saved[0].T @ d) @ saved[1])
    )

    @jax.custom_jvp
    def by_jvp(a, b):
        return a @ b

    by_jvp.defjvp(lambda primals, tangents: (by_jvp(*primals), tangents[0] @ primals[1]))
    for function, forward, both in ((by_vjp, 1, 4), (by_jvp, 1, 2)):
        assert count_function_flops(function, SQUARE, SQUARE) == forward * PRODUCT
        graded = jax.value_and_grad(lambda a, b, f=function: jax.jit(f)(a, b).sum(), (0, 1))
        assert count_function_flops(graded, SQUARE, SQUARE) == both * PRODUCT


def test_a_kernel_counts_what_it_declares_and_is_listed_otherwise():
    def double(cost):
        def body(x, y):
            y[...] = x[...] * 2

        return pl.pallas_call(body, array(3, 3), name="double", cost_estimate=cost)

    cost = pl.CostEstimate(flops=123, transcendentals=0, bytes_accessed=0)
    declared, silent = (count_function(double(each), SQUARE) for each in (cost, None))
    assert (declared.total, declared.kernels) == (123, ())
    assert (silent.total, silent.kernels) == (0, ("double",))


FACTORISATIONS = {
    "triangular_solve": (partial(jax.scipy.linalg.solve_triangular), [(2, 6, 6), (2, 6, 4)], 2 * 6 * 6 * 4),
    "cholesky": (jnp.linalg.cholesky, [(2, 6, 6)], 2 * 6**3 // 3),
    "eigh": (jnp.linalg.eigh, [(2, 6, 6)], 2 * 9 * 6**3),
    # 2 n^2 (m - n / 3) for R, and as much for a Q of n columns.
    "qr": (jnp.linalg.qr, [(2, 9, 6)], 2 * 2 * 2 * 6**2 * (9 - 2)),
    # 4 (m^2 n - m n^2 + n^3 / 3) for a Q of m columns.
    "qr in full": (
        partial(jnp.linalg.qr, mode="complete"),
        [(9, 6)],
        2 * 6**2 * (9 - 2) + 4 * (9**2 * 6 - 9 * 6**2 + 6**3 // 3),
    ),
}


@pytest.mark.parametrize(("function", "shapes", "flops"), FACTORISATIONS.values(), ids=FACTORISATIONS)
def test_factorisations_to_leading_order(function, shapes, flops):
    assert count_function_flops(function, *(array(*shape) for shape in shapes)) == flops
