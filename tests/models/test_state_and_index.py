"""Mamba-2 against its recurrence, sparse attention with an indexer against a loop, convolved attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness.config.schema.cluster import MeshConfig
from harness.core.errors import UserError
from harness.models.attention.state_space.mamba2 import state_space
from harness.models.layers import Rotary
from harness.models.step_clock import StepClock
from harness.parallel.sharding.axis_rules import batch_sharding, param_shardings
from harness.parallel.sharding.mesh import lane_mesh
from tests.models.test_attention import scrambled

INDEXED = {"keys": 4, "index_heads": 3, "index_width": 5}
MAMBA = {"state": 5, "chunk": 4}


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("chunk", [1, 4, 16])
def test_chunks_of_a_state_space_equal_its_recurrence(chunk, documents):
    draw, (B, H, T, N, P) = np.random.default_rng(0), (2, 3, 11, 4, 5)
    read, write = draw.normal(size=(2, B, T, N)).astype(np.float32)
    value = draw.normal(size=(B, H, T, P)).astype(np.float32)
    log_alpha = -draw.exponential(0.5, (B, H, T)).astype(np.float32)
    document_BT = np.array([[0] * 3 + [1] * 8, [0] * 6 + [1] * 5]) if documents else None
    mixed = jax.jit(state_space, static_argnums=4)(
        *map(jnp.asarray, (read, write, value, log_alpha)),
        chunk,
        None if document_BT is None else jnp.asarray(document_BT),
    )
    for b, h in np.ndindex(B, H):
        state = np.zeros((N, P))
        for t in range(T):
            if document_BT is not None and t and document_BT[b, t] != document_BT[b, t - 1]:
                state = np.zeros((N, P))
            state = np.exp(log_alpha[b, h, t]) * state + np.outer(write[b, t], value[b, h, t])
            np.testing.assert_allclose(mixed[b, h, t], read[b, t] @ state, atol=2e-5)


def clocked_loss(model, progress):
    clock = StepClock(jnp.int32(0), jnp.float32(progress), jnp.uint32(0), jnp.int32(0))
    return lambda params, rows: model.loss(params, rows, 0.0, clock)


def test_an_indexer_that_keeps_all_keys_or_is_young_changes_nothing(small, tokens):
    mha = small("mha", layers=1)
    params, rows = scrambled(mha.init(0)), tokens(2, 17)
    expected = jax.jit(mha.token_losses)(params, rows)
    for options in (INDEXED | {"keys": 16}, INDEXED | {"dense_until": 1.0}):
        model = small("indexed", options=options, layers=1)
        both = scrambled(model.init(0)) | params
        parts = jax.jit(clocked_loss(model, 0.5))(both, rows)[1]
        assert float(parts["loss"]) == pytest.approx(float(jnp.mean(expected)), abs=1e-6)
    sparse = small("indexed", options=INDEXED, layers=1)
    assert np.abs(jax.jit(sparse.token_losses)(both, rows) - expected).max() > 1e-3


def test_each_query_sees_the_keys_that_its_indexer_ranks_highest(small):
    """Output and loss of one layer, by loops."""
    model = small("indexed", options=INDEXED, layers=1, qk_norm=False)
    params = scrambled(model.init(0))
    layer = model.module(params).layers[0].attention
    w = {name: np.asarray(params[f"layers.0.attention.{name}"], np.float64) for name in (
        "query", "key", "value", "output", "index_query", "index_key", "index_weight")}  # fmt: skip
    x_TD = np.random.default_rng(1).normal(size=(16, 8))
    still = Rotary.of_frequencies(16, jnp.zeros(2))
    y, side = layer(jnp.asarray(x_TD, jnp.float32)[None], still, jnp.float32(0.5))
    loss = 0.0
    for t in range(16):
        relu = np.maximum(np.einsum("nj,sj->ns", np.einsum("d,dnj->nj", x_TD[t], w["index_query"]),
                                    x_TD[: t + 1] @ w["index_key"]), 0)  # fmt: skip
        index_S = (x_TD[t] @ w["index_weight"]) @ relu
        chosen = np.flatnonzero(index_S >= np.sort(index_S)[-4:][0] - 1e-9)
        heads, target = [], np.zeros(len(chosen))
        for h in range(4):
            score = (x_TD[chosen] @ w["key"][:, h]) @ (x_TD[t] @ w["query"][:, h]) / 2
            weight = np.exp(score) / np.exp(score).sum()
            target += weight / 4
            heads.append(weight @ (x_TD[chosen] @ w["value"][:, h]) @ w["output"][h])
        np.testing.assert_allclose(y[0, t], sum(heads), atol=1e-5)
        guess = np.exp(index_S[chosen]) / np.exp(index_S[chosen]).sum()
        loss += np.sum(target * np.log(target / guess)) / 16
    assert float(side.auxiliary) == pytest.approx(loss, rel=1e-4)


def test_the_indexer_learns_by_its_own_loss_alone(small, tokens):
    model = small("indexed", options=INDEXED, layers=2)
    params, rows = scrambled(model.init(0)), tokens(2, 17)
    gradient = jax.jit(jax.grad(lambda p: clocked_loss(model, 0.5)(p, rows)[0]))(params)
    judged = jax.jit(jax.grad(lambda p: clocked_loss(model, 0.5)(p, rows)[1]["loss"]))(params)
    assert all(gradient[path].any() for path in gradient)
    assert {path for path in judged if not judged[path].any()} == {p for p in params if ".index_" in p}


@pytest.mark.parametrize(
    ("name", "options"), [("indexed", INDEXED), ("mamba2", MAMBA), ("convolved", {"kv_heads": 2})]
)
def test_documents_later_tokens_and_a_mesh_change_nothing(small, tokens, name, options):
    model = small(name, options=options, layers=1, end=3)
    params, rows = scrambled(model.init(0)), np.where(tokens(4, 17) == 3, 4, tokens(4, 17))
    rows[:, 7] = 3
    losses = jax.jit(model.token_losses)
    expected, later, earlier = losses(params, rows), rows.copy(), rows.copy()
    later[:, 12:], earlier[:, :7] = 5, 5
    np.testing.assert_allclose(losses(params, later)[:, :11], expected[:, :11], atol=1e-5)
    np.testing.assert_allclose(losses(params, earlier)[:, 8:], expected[:, 8:], atol=1e-5)
    mesh = lane_mesh(jax.devices()[:8], MeshConfig(2, 2, 2))
    with jax.set_mesh(mesh):
        placed = jax.device_put(params, param_shardings(mesh, model.stored_specs))
        on_mesh = jax.jit(model.token_losses)(placed, jax.device_put(rows, batch_sharding(mesh, 4)))
    np.testing.assert_allclose(np.asarray(on_mesh), expected, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("indexed", {"keys": 0}, "keys=0 must be at least 1"),
        ("indexed", {"rate": 0.0}, "nothing else trains the indexer"),
        ("mamba2", {"state": 0}, "state=0 must be at least 1"),
        ("convolved", {"taps": 17}, "Choose 1 to data.sequence_length=16"),
    ],
)
def test_what_cannot_work_is_refused(small, name, options, sentence):
    with pytest.raises(UserError, match=sentence):
        small(name, options=options)
