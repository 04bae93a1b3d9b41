"""Rows with empty places: their loss is the mean over the targets that are tokens, and so is its gradient."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness.config.schema import run as schema
from harness.config.schema.cluster import MeshConfig
from harness.config.schema.data import DataConfig, Packing
from harness.config.schema.run import Config, ModuleConfig, ScaleConfig
from harness.core.errors import UserError
from harness.models import build
from harness.models.text import cross_entropy
from harness.parallel.sharding.axis_rules import batch_sharding, param_shardings
from harness.parallel.sharding.mesh import lane_mesh

END, T, Z_LOSS = 3, 24, 0.1
LENGTHS = ((7, 1, 10), (25,), (12, 4), (2,))
"""Of the documents of each row of 25 places."""


def documents() -> list[list[np.ndarray]]:
    draw = np.random.default_rng(3)
    return [[np.append(draw.integers(4, 16, n - 1), END) for n in lengths] for lengths in LENGTHS]


def padded_rows() -> np.ndarray:
    rows = np.full((len(LENGTHS), T + 1), -1, np.int32)
    for row, parts in zip(rows, documents(), strict=True):
        joined = np.concatenate(parts)
        row[: len(joined)] = joined
    return rows


def alone() -> tuple[np.ndarray, np.ndarray]:
    """Each document in a row of its own with the token after it, then what no loss before it can see; and
    the number of its targets."""
    draw, rows, counts = np.random.default_rng(4), [], []
    for parts in documents():
        for document, after in zip(parts, [*parts[1:], None], strict=True):
            seen = document if after is None else np.append(document, after[0])
            rows.append(np.append(seen, draw.integers(4, 16, T + 1 - len(seen))))
            counts.append(len(seen) - 1)
    return np.stack(rows).astype(np.int32), np.array(counts)


def alone_loss(model: Any) -> Any:
    rows, counts = alone()
    is_target = np.arange(T) < counts[:, None]

    def loss(params: Any) -> Any:
        logits_BTV = model.logits(params, rows[:, :-1])
        losses_BT = model.token_losses(params, rows)
        terms_BT = losses_BT + Z_LOSS * jnp.square(jax.nn.logsumexp(logits_BTV, axis=-1))
        return jnp.sum(jnp.where(is_target, terms_BT, 0.0)) / counts.sum()

    return loss


def graded(model: Any, mesh: MeshConfig | None = None) -> Any:
    """Loss, its parts and its gradient of the padded rows."""
    program = jax.jit(jax.value_and_grad(lambda p, rows: model.loss(p, rows, Z_LOSS), has_aux=True))
    if mesh is None:
        return jax.tree.map(np.asarray, program(model.init(3), padded_rows()))
    lane = lane_mesh(jax.devices()[: mesh.devices], mesh)
    with jax.set_mesh(lane):
        shardings = param_shardings(lane, model.stored_specs), batch_sharding(lane, len(LENGTHS))
        return jax.tree.map(np.asarray, program(*jax.device_put((model.init(3), padded_rows()), shardings)))


def in_pieces(monkeypatch: pytest.MonkeyPatch, devices: int = 1) -> None:
    for module in (schema, cross_entropy):
        monkeypatch.setattr(module, "LOSS_PIECE_VALUES", 8 * 16 // devices)


def assert_close(one: Any, other: Any, tolerance: float = 2e-6) -> None:
    for path, array in one.items():
        error = np.linalg.norm(array - other[path]) / np.linalg.norm(array)
        assert error < tolerance, path


@pytest.mark.parametrize("pieces", [False, True], ids=["whole", "in pieces"])
def test_padded_rows_of_masked_documents_are_the_documents_alone(small, monkeypatch, pieces):
    plain, padded = (small(layers=2, length=T, end=END, padded=flag) for flag in (False, True))
    expected, expected_gradient = jax.jit(jax.value_and_grad(alone_loss(plain)))(plain.init(3))
    if pieces:
        in_pieces(monkeypatch)
    (loss, parts), gradient = graded(padded)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(parts["loss"] + Z_LOSS * parts["z"], loss, rtol=1e-6)
    assert_close(expected_gradient, gradient)


@pytest.mark.parametrize("mesh", [MeshConfig(2), MeshConfig(1, 2, 2), MeshConfig(1, 1, 1, 1, 2)], ids=str)
@pytest.mark.parametrize("pieces", [False, True], ids=["whole", "in pieces"])
def test_devices_change_nothing(small, monkeypatch, mesh, pieces):
    """Rows, vocabulary and time are split; the devices have different numbers of targets."""
    model = small(layers=1, length=T, end=END, padded=True)
    one = graded(model)
    if pieces:
        in_pieces(monkeypatch, mesh.tensor)
    other = graded(model, mesh)
    np.testing.assert_allclose(one[0][0], other[0][0], rtol=2e-6)
    assert_close(one[1], other[1])


def test_rows_without_empty_places_have_the_loss_of_a_model_that_knows_none(small, tokens):
    rows = tokens(4, T + 1)
    plain, padded = (small(layers=1, length=T, padded=flag) for flag in (False, True))
    params = plain.init(3)
    np.testing.assert_array_equal(plain.token_losses(params, rows), padded.token_losses(params, rows))
    expected = plain.loss(params, rows, Z_LOSS)[0]
    np.testing.assert_allclose(padded.loss(params, rows, Z_LOSS)[0], expected, rtol=1e-6)


def test_empty_places_have_no_loss_and_change_none_before_them(small):
    model, rows = small(layers=1, length=T, padded=True), padded_rows()
    losses = np.asarray(model.token_losses(model.init(3), rows))
    assert not losses[rows[:, 1:] < 0].any()
    other = np.where(rows < 0, 5, rows)
    same = np.asarray(model.token_losses(model.init(3), other))
    np.testing.assert_array_equal(losses[rows[:, 1:] >= 0], same[rows[:, 1:] >= 0])


def test_an_objective_of_ones_own_does_not_meet_empty_places():
    data = DataConfig(sequence_length=T, packing=Packing.best_fit)
    config = Config(scale=ScaleConfig("tiny", 3_000, 10_000, 4), data=data, objective=ModuleConfig("mine"))
    with pytest.raises(UserError, match=r"data.packing=best_fit .* objective.name=mine .* Set"):
        build(config, 16)
