"""Rows past the vocabulary: no probability, a gradient of exactly zero, and nothing else changes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness.config.schema import run as schema
from harness.config.schema.cluster import MeshConfig
from harness.core.errors import UserError
from harness.models.counting.jaxpr import count_function_flops
from harness.models.text import cross_entropy
from harness.models.text.embedding import lookup_rows
from harness.parallel.sharding.axis_rules import (
    batch_sharding,
    out_sharding,
    param_shardings,
    partition_spec,
)
from harness.parallel.sharding.mesh import abstract_mesh, lane_mesh
from tests.models.conftest import VOCABULARY

ROWS = 24
"""Rows of the padded tables, over 2 and 3 devices; with 3, the last one holds no token at all."""
CAPPED = {"logit_softcap": 3.0}
UNTIED = {"tie_embeddings": False, "base_width": 4}
OVER_THREE = {"heads": 3, "width": 12}


def answer(model, tokens, mesh: MeshConfig | None = None):
    """Loss, gradient by canonical path, each token's loss, and logits."""
    graded = jax.value_and_grad(lambda params: model.loss(params, tokens, 0.1)[0])

    def ask(params):
        return *graded(params), model.token_losses(params, tokens), model.logits(params, tokens[:, :-1])

    if mesh is None:
        return jax.tree.map(np.asarray, jax.jit(ask)(model.init(3)))
    lane = lane_mesh(jax.devices()[: mesh.devices], mesh)
    with jax.set_mesh(lane):
        tokens = jax.device_put(tokens, batch_sharding(lane, len(tokens)))
        params = jax.device_put(model.init(3), param_shardings(lane, model.stored_specs))
        return jax.tree.map(np.asarray, jax.jit(ask)(params))


def assert_padding_changes_nothing(plain, padded):
    (loss, gradient, losses_BT, logits_BTV), (other, slopes, other_BT, other_BTV) = plain, padded
    np.testing.assert_allclose(other, loss, rtol=1e-6)
    np.testing.assert_allclose(other_BT, losses_BT, rtol=2e-6, atol=2e-6)
    assert other_BTV.shape[-1] == VOCABULARY
    np.testing.assert_allclose(other_BTV, logits_BTV, rtol=1e-5, atol=2e-6)
    for path, array in gradient.items():
        error = np.linalg.norm(slopes[path][: len(array)] - array) / np.linalg.norm(array)
        assert error < 2e-6, path
        if path in ("embedding", "head"):
            assert len(slopes[path]) == ROWS
            assert (slopes[path][VOCABULARY:] == 0).all(), path


CASES = [
    pytest.param(CAPPED, None, True, id="in pieces"),
    pytest.param(CAPPED | OVER_THREE, MeshConfig(1, 2, 3), False, id="over 2 x 3"),
    *(
        pytest.param(changes, mesh, pieces, id=f"{name}-{mesh}-{pieces}", marks=pytest.mark.slow)
        for name, changes in (("capped", CAPPED | OVER_THREE), ("untied", UNTIED | OVER_THREE))
        for mesh in (None, MeshConfig(1, 2, 3), MeshConfig(1, 1, 3, 1, 2))
        for pieces in (False, True)
    ),
]


@pytest.mark.parametrize(("changes", "mesh", "pieces"), CASES)
def test_padding_changes_no_loss_and_no_gradient(small, tokens, monkeypatch, changes, mesh, pieces):
    batch, given = tokens(4, 17), {"layers": 1, **changes}
    plain = answer(small(**given), batch)
    if pieces:
        for module in (schema, cross_entropy):
            monkeypatch.setattr(module, "LOSS_PIECE_VALUES", 7 * ROWS)
    assert_padding_changes_nothing(plain, answer(small(**given, vocabulary_multiple=ROWS), batch, mesh))


def test_the_first_rows_are_drawn_as_those_of_the_vocabulary_alone(small):
    plain, padded = (
        small(tie_embeddings=False, vocabulary_multiple=multiple).init(5) for multiple in (1, 128)
    )
    for path, array in plain.items():
        assert padded[path][: len(array)].tobytes() == array.tobytes(), path
    assert len(padded["head"]) == 128


def test_a_vocabulary_that_is_a_multiple_gets_the_program_of_no_padding(small, tokens):
    def program(multiple):
        model = small(layers=1, vocabulary_multiple=multiple)
        return str(jax.make_jaxpr(lambda params: model.loss(params, tokens(2, 17), 0.1))(model.init(0)))

    assert program(8) == program(1) != program(ROWS)


def test_padding_is_executed_and_stored_but_is_no_model_flop(small, tokens):
    plain, padded = small(), small(vocabulary_multiple=ROWS)
    more = ROWS - VOCABULARY
    assert padded.flops_per_token == plain.flops_per_token
    assert padded.non_embedding_parameters == plain.non_embedding_parameters
    assert padded.parameters == plain.parameters + more * 8
    assert padded.executed_flops_per_token == plain.executed_flops_per_token + 3 * 2 * 8 * more
    batch, params = tokens(2, 17), padded.init(0)
    counted = count_function_flops(jax.grad(lambda p: padded.loss(p, batch, 0.0)[0]), params)
    assert counted == 2 * 16 * padded.executed_flops_per_token


def test_a_mesh_that_does_not_divide_the_rows_names_the_key(small):
    mesh = abstract_mesh(MeshConfig(tensor=3))
    named = "mesh.tensor = 3 does not divide vocabulary = 128: set model.vocabulary_multiple to a multiple"
    with pytest.raises(UserError, match=named):
        param_shardings(mesh, {"embedding": small(vocabulary_multiple=128).param_specs["embedding"]})


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_no_device_holds_rows_of_another_and_the_bits_are_those_of_one(dtype):
    V, D, B, T = 32, 8, 4, 6
    rng = np.random.default_rng(0)
    table_VD, slope_BTD = rng.standard_normal((V, D), np.float32), rng.standard_normal((B, T, D), np.float32)
    tokens_BT = rng.permutation(V)[: B * T].reshape(B, T)  # once each: no sum of gradients has an order

    def ask(table_VD, tokens_BT):
        return jax.vjp(lambda table: lookup_rows(table, tokens_BT, dtype), table_VD)

    def both(table_VD, tokens_BT, slope_BTD):
        rows_BTD, back = ask(table_VD, tokens_BT)
        return rows_BTD, back(slope_BTD.astype(dtype))[0]

    alone = jax.jit(both)(table_VD, tokens_BT, slope_BTD)
    lane = lane_mesh(jax.devices(), MeshConfig(data=2, tensor=4))
    with jax.set_mesh(lane):
        places = [
            partition_spec(*axes) for axes in (("vocabulary", None), ("batch", None), ("batch", None, None))
        ]
        arrays = [
            jax.device_put(a, jax.NamedSharding(lane, p))
            for a, p in zip((table_VD, tokens_BT, slope_BTD), places, strict=True)
        ]
        program = jax.jit(both).lower(*arrays).compile()
        together = program(*arrays)
    assert out_sharding("batch") is None
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(np.asarray(one, np.float32), np.asarray(other, np.float32))
    text = program.as_text()
    assert text is not None
    assert f"[{V // 4},{D}]" in text
    assert f"[{V},{D}]" not in text
