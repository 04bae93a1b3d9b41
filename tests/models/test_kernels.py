"""Fused kernels of attention, against the form that is written out: splash interpreted on the CPU, and the
calls of cuDNN against those of JAX, which run on a GPU alone."""

import dataclasses
import json
import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import P
from jax.sharding import AxisType

from harness.config.schema.run import Kernels, ModuleConfig, Precision
from harness.core.errors import UserError
from harness.models.attention.gqa import GQAOptions
from harness.models.attention.grouped_query import ScoreOptions
from harness.models.attention.kernels import choice, cudnn, softmax, splash
from harness.models.attention.mla import MLAOptions
from harness.models.attention.window import WindowOptions
from harness.models.kernels import CPU, KernelTarget, describe_kernels
from harness.models.mechanism import LayerContext, ModelDims
from harness.models.registry import ATTENTION

B, H, G, T, K = 2, 4, 2, 256, 8
WINDOW, SOFTCAP = 100, 3.0
INTERPRETED = partial(splash.splash_attention, interpret=True)


@pytest.fixture
def small_blocks(monkeypatch):
    """Several blocks a sequence, some of them without a visible key."""
    monkeypatch.setattr(splash, "LARGEST_BLOCK", splash.LANES)


def drawn(B=B, H=H, G=G, K=K, dtype=jnp.float32):
    draw = np.random.default_rng(0)
    query, key, value = (draw.normal(size=(B, heads, T, K)) for heads in (H, G, G))
    documents = np.cumsum(draw.random((B, T)) < 0.02, axis=1).astype(np.int32)
    arrays = (jnp.asarray(array, dtype) for array in (query, key, value))
    return *arrays, jnp.asarray(draw.normal(size=H), jnp.float32), jnp.asarray(documents)


def weighted_sum(attend, window, softcap, query, key, value, sink, documents):
    """A number that each output enters with a weight of its own."""
    mixed = attend(query, key, value, window, softcap, sink, documents).astype(jnp.float32)
    return jnp.sum(mixed * jnp.cos(jnp.arange(mixed.size, dtype=jnp.float32)).reshape(mixed.shape))


def value_and_slopes(attend, window, softcap, *arrays):
    loss = partial(weighted_sum, attend, window, softcap)
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)))(*arrays)


def test_splash_equals_the_form_written_out_with_every_option(small_blocks):
    """Grouped heads, a window, a softcap, sinks and documents; forward and every gradient."""
    arrays = drawn(B=1, H=2, G=1)
    fused = value_and_slopes(INTERPRETED, WINDOW, SOFTCAP, *arrays)
    written = value_and_slopes(softmax.attend, WINDOW, SOFTCAP, *arrays)
    jax.tree.map(partial(np.testing.assert_allclose, atol=2e-5, rtol=1e-5), fused, written)


@pytest.mark.slow
def test_each_device_runs_the_kernel_on_its_own_heads_and_sequences(small_blocks):
    """Sinks are shared by the devices that split the batch: their gradient is a sum over them."""
    mesh = jax.make_mesh((2, 2, 2, 1), ("data", "fsdp", "tensor", "expert"), (AxisType.Explicit,) * 4)
    arrays = drawn(B=4)
    heads, batch = P(("data", "fsdp", "expert"), "tensor", None, None), ("data", "fsdp", "expert")
    specs = heads, heads, heads, P("tensor"), P(batch, None)
    alone = value_and_slopes(softmax.attend, None, None, *arrays)
    with jax.set_mesh(mesh):
        placed = [jax.device_put(x, jax.NamedSharding(mesh, s)) for x, s in zip(arrays, specs, strict=True)]
        together = value_and_slopes(INTERPRETED, None, None, *placed)
    jax.tree.map(partial(np.testing.assert_allclose, atol=2e-5, rtol=1e-5), together, alone)


def written_out_by_cudnn(target, window, operands, results, products):
    """What cuDNN computes by its documentation: outputs and log sums; or gradients, from weights that are
    exp(score - log sum) and the products of outputs with their gradient."""
    query, key, value, *rest = operands
    repeated = [jnp.repeat(array, query.shape[1] // array.shape[1], axis=1) for array in (key, value)]
    bias = next((array for array in rest if array.ndim == 4 and array.shape[1:3] == (1, T)), 0.0)
    mask = softmax.causal_mask(jnp.arange(T), jnp.arange(T), window)

    def score(query, key):
        scores = jnp.einsum("bhtk,bhsk->bhts", query, key) / math.sqrt(query.shape[3]) + bias
        return jnp.where(mask, scores, -jnp.inf)

    if not target.endswith("Backward"):
        total = jax.nn.logsumexp(score(query, repeated[0]), axis=-1)
        weights = jnp.exp(score(query, repeated[0]) - total[..., None])
        return [jnp.einsum("bhts,bhsk->bhtk", weights, repeated[1]), total]
    total, slope, mixed = rest[0], rest[1], rest[-1]
    scores, pull = jax.vjp(score, query, repeated[0])
    weights = jnp.exp(scores - total[..., None])
    of_weights = jnp.einsum("bhtk,bhsk->bhts", slope, repeated[1])
    of_query, of_key = pull(weights * (of_weights - jnp.sum(mixed * slope, axis=-1, keepdims=True)))
    of_value = jnp.einsum("bhts,bhtk->bhsk", weights, slope)
    grouped = [array.reshape(*key.shape[:2], -1, T, key.shape[3]).sum(axis=2) for array in (of_key, of_value)]
    return [of_query, *grouped]


def test_sinks_and_documents_around_cudnn_equal_the_form_written_out(monkeypatch):
    monkeypatch.setattr(cudnn, "_call", written_out_by_cudnn)
    fused = value_and_slopes(cudnn.cudnn_attention, WINDOW, None, *drawn())
    written = value_and_slopes(softmax.attend, WINDOW, None, *drawn())
    jax.tree.map(partial(np.testing.assert_allclose, atol=2e-4, rtol=1e-5), fused, written)


def cudnn_calls(attend):
    """Custom calls of a forward and backward pass lowered for a GPU, without the names of values."""
    query, key, value, _, documents = (jax.eval_shape(lambda x=x: x) for x in drawn(dtype=jnp.bfloat16))

    def loss(query, key, value, documents):
        return jnp.sum(attend(query, key, value, documents).astype(jnp.float32))

    traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(query, key, value, documents)
    lines = traced.lower(lowering_platforms=("cuda",)).as_text().splitlines()
    return [re.sub(r"%\w+(#\d)?(:\d)?", "%", line.strip()) for line in lines if "__cudnn$" in line]


@pytest.mark.parametrize("window", [None, WINDOW])
def test_the_calls_of_cudnn_are_those_that_jax_makes(window, monkeypatch):
    """JAX's own, which asks for an installed cuDNN. If XLA reads other calls one day, this fails first."""
    from jax._src.cudnn import fused_attention_stablehlo as theirs

    monkeypatch.setattr(theirs, "check_cudnn_version", lambda: 91000)

    def of_jax(query, key, value, documents):
        return theirs.dot_product_attention(
            query,
            key,
            value,
            scale=1 / math.sqrt(K),
            mask_type=theirs.MaskType.CAUSAL,
            qkv_layout="BNTH",
            sliding_window_length=window,
        )

    ours = cudnn_calls(lambda query, key, value, documents: cudnn.cudnn_attention(query, key, value, window))
    assert len(ours) == 2
    assert ours == cudnn_calls(of_jax)


def test_documents_are_a_bias_of_cudnns_call():
    forward, backward = cudnn_calls(
        lambda query, key, value, documents: cudnn.cudnn_attention(
            query, key, value, None, document_BT=documents
        )
    )
    mask = f"tensor<{B}x1x{T}x{T}xbf16>"
    assert re.search(rf"__cudnn\$fmhaScaleBiasSoftmax\(.*{mask}", forward)
    assert re.search(rf"__cudnn\$fmhaScaleBiasSoftmaxBackward\(.*{mask}", backward)


def layer(platform, length=256, dtype=Precision.bfloat16, kernels=Kernels.auto, **changes):
    shape = ModelDims(width=64, layers=2, heads=4, head_width=16, ffn=64, vocabulary=64)
    context = LayerContext(shape, 0, length, qk_norm=True, norm_epsilon=1e-6)
    return dataclasses.replace(context, target=KernelTarget(platform, dtype, kernels), **changes)


PLAIN, CAPPED = ScoreOptions(), ScoreOptions(softcap=50.0, sinks=True)


@pytest.mark.parametrize(
    ("context", "options", "name", "lacks"),
    [
        (layer("cpu"), PLAIN, "reference", ""),
        (layer("tpu"), CAPPED, "splash", ""),
        (layer("tpu", dtype=Precision.float32, documents=True), WindowOptions(window=8), "splash", ""),
        (layer("tpu", length=192), PLAIN, "reference", "data.sequence_length=192 to be a multiple of 128"),
        (layer("tpu", sequence_shards=2), PLAIN, "reference", "mesh.context=2 passes the keys round a ring"),
        (layer("cuda", length=100, documents=True), GQAOptions(kv_heads=2, sinks=True), "cuDNN", ""),
        (layer("cuda", dtype=Precision.float32), PLAIN, "reference", "bfloat16, not compute.dtype=float32"),
        (layer("cuda"), CAPPED, "reference", "no softcap, which is 50"),
        (layer("cuda", length=99, documents=True), PLAIN, "reference", "not data.sequence_length=99"),
        (layer("cuda"), MLAOptions(latent=8, rotary=4), "reference", "up to 128, not 20"),
        (layer("cuda"), MLAOptions(latent=8, rotary=8), "cuDNN", ""),
        (layer("rocm"), PLAIN, "reference", "cluster.platform=rocm has no fused attention here"),
        (layer("tpu", kernels=Kernels.reference), PLAIN, "reference", ""),
    ],
)
def test_the_kernel_is_that_of_the_platform_where_it_carries_the_options(context, options, name, lacks):
    mechanism = {WindowOptions: "window", GQAOptions: "gqa", MLAOptions: "mla"}.get(type(options), "mha")
    module = ATTENTION.lookup(ModuleConfig(mechanism, dataclasses.asdict(options)))
    kernel = module.kernel(context)
    assert kernel.name == name
    assert lacks in kernel.lacks
    assert bool(lacks) == bool(kernel.lacks)
    assert module.build(context).kernel == kernel
    asked = dataclasses.replace(context.target, kernels=Kernels.fused)
    if name == "reference" and context.target.kernels is Kernels.auto:
        with pytest.raises(UserError, match=r"compute.kernels=fused: .*Choose compute.kernels=auto"):
            module.kernel(dataclasses.replace(context, target=asked))
    else:
        assert module.kernel(dataclasses.replace(context, target=asked)).fused


def test_kernels_of_a_model_are_told_by_layer():
    plain, capped = (
        choice.choose_attention(layer("cuda"), choice.ScoreShape(16, 16, None, cap)) for cap in (None, 9.0)
    )
    assert describe_kernels([plain, plain]) == ["attention: cuDNN"]
    assert describe_kernels([plain, capped, plain]) == [
        "attention: cuDNN in 2 of 3 layers",
        "attention: reference in 1 of 3 layers (cuDNN's attention has no softcap, which is 9)",
    ]


@pytest.mark.parametrize(("length", "window"), [(512, None), (512, 100), (1024, 129), (640, 640)])
def test_kernels_compute_the_blocks_that_hold_a_visible_key(length, window):
    block = 128
    mask = np.asarray(softmax.causal_mask(jnp.arange(length), jnp.arange(length), window))
    visible = mask.reshape(length // block, block, length // block, block).any(axis=(1, 3))
    assert splash.mean_computed_keys(length, window, block) == visible.sum() * block**2 / length


def test_fused_attention_saves_no_scores(small):
    """And multiplies more: its gradient computes them again."""
    plain = small(length=256)
    fused = dataclasses.replace(plain, spec=dataclasses.replace(plain.spec, target=KernelTarget("tpu")))
    products = map(plain.spec.attention.executed_flops, plain.spec.contexts)
    scores = 8 * sum(layer.activations / (4 * 4) for layer in products)
    saved = plain.activation_bytes(256) - fused.activation_bytes(256)
    assert saved == pytest.approx(256 * scores, rel=1e-3)
    assert fused.spec.kernels[0].name == "splash"
    assert fused.with_reference_kernels().spec.target == CPU
    assert json.dumps(describe_kernels(fused.spec.kernels)) == '["attention: splash"]'
