"""The same mathematics however it is executed, and what every mechanism owes: no look into the future."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness.config.schema.cluster import MeshConfig
from harness.config.schema.run import ComputeConfig, Precision, Remat
from harness.parallel.sharding.axis_rules import batch_sharding, param_shardings
from harness.parallel.sharding.mesh import lane_mesh
from tests.models.mechanisms import LOCAL, MECHANISMS, OF_EACH


@pytest.fixture(params=MECHANISMS.values(), ids=[*MECHANISMS])
def mechanism(request):
    name, options = request.param
    return {"name": name, "options": options}


def loss_and_gradient(model, params, tokens):
    return jax.jit(jax.value_and_grad(lambda p: model.loss(p, tokens, 1e-2), has_aux=True))(params)


def test_no_loss_depends_on_a_later_token(small, mechanism):
    """Gradients with respect to one-hot tokens, so that a zero is exact."""
    model = small(**mechanism, layers=2)
    params = model.init(0)
    T, V = 16, model.shape.vocabulary

    def logits(inputs_TV):
        # The embedding of `inputs` becomes the table, so that position t reads row t.
        rows = inputs_TV @ params["embedding"]
        table = {**params, "embedding": rows, "head": jnp.asarray(params["embedding"])}
        return untied.logits(table, jnp.arange(T)[None])[0]

    untied = small(**mechanism, layers=2, tie_embeddings=False)
    inputs_TV = jax.nn.one_hot(np.arange(T) % V, V)
    seen_TT = np.abs(jax.jit(jax.jacrev(lambda x: logits(x).sum(-1)))(inputs_TV)).sum(-1)
    assert (np.triu(seen_TT, 1) == 0).all()
    assert (np.diag(seen_TT) > 0).all()
    assert (np.diag(seen_TT, -1) > 0).all()


@pytest.mark.parametrize(
    ("name", "options", "layers"),
    [("gqa", {"kv_heads": 2}, 2), ("pattern", {"cycle": [LOCAL, {"name": "mha"}]}, 3)],
    ids=["a layer repeats", "two repeat, one is left over"],
)
def test_scan_equals_loop(small, tokens, name, options, layers):
    loop = small(name, options=options, layers=layers)
    scan = small(name, options=options, layers=layers, compute=ComputeConfig(scan_layers=True))
    batch = tokens(2, 17)
    (one, _), gradient = loss_and_gradient(loop, loop.init(3), batch)
    (other, _), stacked = loss_and_gradient(scan, scan.init(3), batch)
    assert scan.stacking.repeats
    assert float(one) == pytest.approx(float(other), rel=1e-6)
    for path, array in scan.unstack(stacked).items():
        np.testing.assert_allclose(gradient[path], array, atol=2e-6, err_msg=path)


@pytest.mark.parametrize("layers", [False, True])
@pytest.mark.parametrize("remat", [Remat.dots, Remat.full])
def test_remat_equals_none(small, tokens, layers, remat):
    kept = small("gqa", options={"kv_heads": 2}, layers=1, compute=ComputeConfig(scan_layers=layers))
    again = small(
        "gqa", options={"kv_heads": 2}, layers=1, compute=ComputeConfig(scan_layers=layers, remat=remat)
    )
    (one, _), gradient = loss_and_gradient(kept, kept.init(1), tokens(2, 17))
    (other, _), recomputed = loss_and_gradient(again, again.init(1), tokens(2, 17))
    assert float(one) == pytest.approx(float(other), rel=1e-6)
    for path, array in gradient.items():
        np.testing.assert_allclose(array, recomputed[path], atol=2e-6, err_msg=path)


@pytest.mark.parametrize(
    "given",
    [
        {"layers": 1},
        {"name": "pattern", "options": {"cycle": OF_EACH}, "layers": 3},
        *(pytest.param({"name": n, "options": o}, marks=pytest.mark.slow) for n, o in MECHANISMS.values()),
    ],
    ids=["mha", "one layer of each", *(f"three of {name}" for name in MECHANISMS)],
)
def test_bfloat16_is_near_float32(small, tokens, given):
    """Each token's loss of about 2.8 nats within 0.1: bfloat16 keeps 8 bits, over so many layers.

    Three layers of the delta rule get 0.2: each norms answers of width 4, and small ones lost bits.
    """
    wide, narrow = small(**given), small(**given, compute=ComputeConfig(dtype=Precision.bfloat16))
    params, batch = wide.init(0), tokens(4, 17)
    one, other = (np.asarray(jax.jit(m.token_losses)(params, batch)) for m in (wide, narrow))
    assert other.dtype == np.float32
    np.testing.assert_allclose(one, other, atol=0.2 if given.get("name") == "gated_delta" else 0.1)
    assert not np.array_equal(one, other)


def assert_together_as_alone(small, tokens, compute, **given):
    """Loss and every gradient on 2 x 2 x 2 devices as on one, plain, within float32 summation order."""
    plain, model = small(**given), small(**given, compute=compute)
    batch, mesh = tokens(8, 17), lane_mesh(jax.devices(), MeshConfig(2, 2, 2))
    (alone, _), gradient = loss_and_gradient(plain, plain.init(0), batch)
    with jax.set_mesh(mesh):
        placed = jax.device_put(model.init(0), param_shardings(mesh, model.stored_specs))
        (together, _), split = loss_and_gradient(
            model, placed, jax.device_put(batch, batch_sharding(mesh, 8))
        )
    assert float(together) == pytest.approx(float(alone), rel=1e-6)
    for path, array in model.unstack(split).items():
        np.testing.assert_allclose(gradient[path], array, rtol=1e-4, atol=2e-5, err_msg=path)


@pytest.mark.slow
def test_scan_remat_and_eight_devices_equal_plain_for_a_layer_of_each(small, tokens):
    compute = ComputeConfig(scan_layers=True, remat=Remat.dots)
    assert_together_as_alone(small, tokens, compute, name="pattern", options={"cycle": OF_EACH}, layers=6)


@pytest.mark.slow
@pytest.mark.parametrize("remat", Remat)
@pytest.mark.parametrize("layers", [False, True])
@pytest.mark.parametrize("name", MECHANISMS)
def test_scan_remat_and_eight_devices_equal_plain(small, tokens, name, layers, remat):
    compute = ComputeConfig(scan_layers=layers, remat=remat)
    mechanism, options = MECHANISMS[name]
    assert_together_as_alone(small, tokens, compute, name=mechanism, options=options)


def test_loss_is_the_mean_of_token_losses_and_z_is_added(small, tokens):
    model = small()
    params, batch = model.init(0), tokens(4, 17)
    losses_BT = jax.jit(model.token_losses)(params, batch)
    total, parts = jax.jit(lambda p: model.loss(p, batch, 0.5))(params)
    logits_BTV = np.asarray(jax.jit(model.logits)(params, batch[:, :-1]), np.float64)
    partition_BT = np.log(np.exp(logits_BTV).sum(-1))
    expected_BT = partition_BT - np.take_along_axis(logits_BTV, batch[:, 1:, None], -1)[..., 0]
    np.testing.assert_allclose(losses_BT, expected_BT, rtol=1e-5)
    assert parts["loss"] == pytest.approx(expected_BT.mean(), rel=1e-5)
    assert total == pytest.approx(expected_BT.mean() + 0.5 * (partition_BT**2).mean(), rel=1e-5)


def test_untied_head_has_its_own_parameters(small):
    tied, untied = small(), small(tie_embeddings=False)
    assert "head" in untied.param_specs
    assert untied.embedding_parameters == 2 * tied.embedding_parameters
    assert (
        untied.non_embedding_parameters
        == tied.non_embedding_parameters
        == sum(spec.size for path, spec in tied.param_specs.items() if path != "embedding")
    )
