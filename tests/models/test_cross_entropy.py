"""The loss in pieces equals the loss of whole logits; it holds an eighth of them at a real size."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness.config.schema import run as schema
from harness.config.schema.cluster import MeshConfig
from harness.config.schema.run import ComputeConfig, Precision
from harness.models.counting.jaxpr import count_function_flops
from harness.models.text import cross_entropy
from harness.models.text.cross_entropy import LossTerms, loss_in_pieces
from harness.parallel.sharding.axis_rules import batch_sharding, param_shardings, partition_spec
from harness.parallel.sharding.mesh import lane_mesh

BATCH, LENGTH, PIECE = 8, 20, 7
"""A device's 160 or 20 tokens are no multiple of a piece's 4 (7, rounded down to a power of two)."""
UNTIED = {"tie_embeddings": False, "base_width": 4}
CAPPED = {"logit_softcap": 3.0}


@pytest.fixture
def answer(small, monkeypatch):
    """Loss, its parts, gradient and each token's loss of a model of two layers, in pieces where asked."""

    def make(mesh: MeshConfig | None, pieces: bool, **changes: Any):
        values = 2 * PIECE * 16 // (mesh.tensor if mesh else 1) if pieces else 2**27
        for module in (schema, cross_entropy):
            monkeypatch.setattr(module, "LOSS_PIECE_VALUES", values)
        model = small(length=LENGTH, layers=1, **changes)
        tokens = np.random.default_rng(5).integers(0, 16, (BATCH, LENGTH + 1), np.int32)
        graded = jax.value_and_grad(lambda params, rows: model.loss(params, rows, 0.1), has_aux=True)

        def both(params, rows):
            return graded(params, rows), model.token_losses(params, rows)

        if mesh is None:
            return jax.tree.map(np.asarray, jax.jit(both)(model.init(3), tokens))
        lane = lane_mesh(jax.devices()[: mesh.devices], mesh)
        with jax.set_mesh(lane):
            shardings = param_shardings(lane, model.stored_specs), batch_sharding(lane, BATCH)
            return jax.tree.map(
                np.asarray, jax.jit(both)(*jax.device_put((model.init(3), tokens), shardings))
            )

    return make


def assert_equal_within(tolerance, one, other):
    ((loss, parts), gradient), losses_BT = one
    ((other_loss, other_parts), other_gradient), other_losses_BT = other
    np.testing.assert_allclose(loss, other_loss, rtol=tolerance)
    for name in ("loss", "z"):
        np.testing.assert_allclose(parts[name], other_parts[name], rtol=tolerance)
    np.testing.assert_allclose(losses_BT, other_losses_BT, rtol=tolerance, atol=tolerance)
    for path, array in gradient.items():
        error = np.linalg.norm(array - other_gradient[path]) / np.linalg.norm(array)
        assert error < tolerance, path


@pytest.mark.parametrize("changes", [CAPPED, UNTIED], ids=["tied and capped", "untied"])
def test_pieces_equal_whole_logits(answer, changes):
    assert_equal_within(1e-6, answer(None, False, **changes), answer(None, True, **changes))


MESHES = [
    MeshConfig(2, 2, 2),
    pytest.param(MeshConfig(1, 2, 4), marks=pytest.mark.slow),
    pytest.param(MeshConfig(2, 1, 2, 1, 2), marks=pytest.mark.slow),
    pytest.param(MeshConfig(1, 2, 1, 2, 2), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_pieces_over_devices_equal_whole_logits_over_the_same(answer, mesh):
    """Tokens, vocabulary and width are split; float32 sums in another order differ by up to 2e-6."""
    assert_equal_within(2e-6, answer(mesh, False, **CAPPED), answer(mesh, True, **CAPPED))


def test_a_piece_is_a_power_of_two_and_small_heads_are_whole():
    assert [schema.loss_piece_tokens(v) for v in (131_072, 50_257, 2**28)] == [1024, 2048, 1]
    assert not cross_entropy.needs_pieces(1024, 131_072)
    assert cross_entropy.needs_pieces(1025, 131_072)


@pytest.mark.parametrize("frozen", [False, True], ids=["", "head frozen"])
def test_pieces_multiply_as_often_as_whole_logits(small, monkeypatch, frozen):
    """The gradient needs no logits again, and none of a frozen table."""
    model = small(length=LENGTH, layers=1, tie_embeddings=False)
    specs = {path: jax.ShapeDtypeStruct(spec.shape, jnp.float32) for path, spec in model.stored_specs.items()}
    fixed = {path: specs.pop(path) for path in ("head",) if frozen}
    rows = jax.ShapeDtypeStruct((2, LENGTH + 1), jnp.int32)

    def count():
        graded = jax.grad(lambda params, fixed, rows: model.loss(params | fixed, rows, 0.1)[0])
        return count_function_flops(graded, specs, fixed, rows)

    whole = count()
    for module in (schema, cross_entropy):
        monkeypatch.setattr(module, "LOSS_PIECE_VALUES", PIECE * 16)
    assert cross_entropy.needs_pieces(2 * LENGTH, 16)
    assert count() == whole


def loss_bytes(mesh: MeshConfig, gradient: bool) -> tuple[int, int]:
    """Temporary bytes of one device for the loss of 8 x 4,096 tokens over a vocabulary of 131,072, and those
    of its share of the logits in float32."""
    B, T, D, V = 8, 4096, 256, 131_072
    lane = lane_mesh(jax.devices()[: mesh.devices], mesh)

    def spec(shape, dtype, *axes):
        split = partition_spec(*axes, mesh=lane)
        return jax.ShapeDtypeStruct(shape, dtype, sharding=jax.NamedSharding(lane, split))

    def loss(x_BTD, table_VD, target_BT):
        found: Any = loss_in_pieces(x_BTD, table_VD, target_BT, LossTerms(1e-4, 30.0))
        return found.mean

    arguments = (
        spec((B, T, D), jnp.bfloat16, "batch", None, None),
        spec((V, D), jnp.float32, "vocabulary", "width"),
        spec((B, T), jnp.int32, "batch", None),
    )
    with jax.set_mesh(lane):
        program = jax.jit(jax.value_and_grad(loss, (0, 1)) if gradient else loss)
        analysis: Any = program.lower(*arguments).compile().memory_analysis()
    return analysis.temp_size_in_bytes, 4 * B * T * V // mesh.devices


@pytest.mark.parametrize("gradient", [False, True], ids=["evaluation", "step"])
def test_a_large_vocabulary_takes_an_eighth_of_its_logits(gradient, capsys):
    held, logits = loss_bytes(MeshConfig(), gradient)
    with capsys.disabled():
        print(f"\nloss over 131,072 tokens: {held / 2**30:.2f} of {logits / 2**30:.0f} GiB")
    assert held <= logits / 8


@pytest.mark.slow
def test_a_split_vocabulary_has_longer_pieces_that_take_no_more():
    alone, split = (loss_bytes(mesh, gradient=True)[0] for mesh in (MeshConfig(), MeshConfig(1, 2, 2)))
    assert split <= alone


def test_bfloat16_has_the_same_losses(answer):
    compute = ComputeConfig(dtype=Precision.bfloat16)
    whole, pieces = (answer(None, split, compute=compute)[1] for split in (False, True))
    np.testing.assert_allclose(whole, pieces, rtol=1e-6, atol=1e-6)
