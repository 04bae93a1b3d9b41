"""Costs that a registration leaves out are counted in the traced module, as the shipped ones declare them."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from harness.config.schema.run import ModuleConfig
from harness.config.socket_registry import NoOptions
from harness.core.errors import UserError
from harness.models.layers import project
from harness.models.mechanism import MatmulFlops
from harness.models.parameters import weight
from harness.models.registry import (
    ATTENTION,
    CONDITIONING,
    FEEDFORWARD,
    ConfiguredModule,
    register_attention,
    register_feedforward,
)
from tests.models.mechanisms import FEEDFORWARDS, MECHANISMS


def undeclared(registry, node):
    configured = registry.lookup(node)
    entry = dataclasses.replace(configured.entry, model_flops=None, executed_flops=None, cache_bytes=None)
    return configured, ConfiguredModule(entry, configured.options)


def assert_same_products(declared, counted):
    assert counted.total == pytest.approx(declared.total, rel=1e-12)
    assert counted.weights == pytest.approx(declared.weights + declared.final, rel=1e-12)
    assert counted.activations == pytest.approx(declared.activations, rel=1e-12)


@pytest.mark.parametrize(("name", "options"), MECHANISMS.values(), ids=MECHANISMS)
def test_attention(small, name, options):
    declared, counted = undeclared(ATTENTION, ModuleConfig(name, options))
    for context in small(length=32).spec.contexts:
        shape = context.shape
        assert_same_products(declared.executed_flops(context), counted.executed_flops(context))
        assert counted.model_flops(context) == counted.executed_flops(context).total
        assert counted.cache_bytes(context, 2) == 2 * 2 * 32 * shape.heads * shape.head_width


@pytest.mark.parametrize("name", ["swiglu", *FEEDFORWARDS])
def test_feedforward(small, name):
    node = ModuleConfig("moe", FEEDFORWARDS[name]) if name in FEEDFORWARDS else ModuleConfig(name)
    declared, counted = undeclared(FEEDFORWARD, node)
    context = small(length=32, feedforward=node).spec.context(1)
    declared_flops, counted_flops = declared.executed_flops(context), counted.executed_flops(context)
    assert counted_flops.total == pytest.approx(declared_flops.total, rel=1e-12)


@pytest.mark.parametrize("name", ["adaptive_norm", "in_context"])
def test_conditioning(small, name):
    declared, counted = undeclared(CONDITIONING, ModuleConfig(name))
    context = small(length=32).spec.context(1)
    assert_same_products(declared.executed_flops(context), counted.executed_flops(context))


def test_on_a_mesh_of_sequences_and_devices_the_count_is_of_the_full_sequence(small):
    _, counted = undeclared(ATTENTION, ModuleConfig("mha"))
    context = small(length=32).spec.context(0)
    shared = dataclasses.replace(context, sequence_shards=2)
    assert counted.unreplicated_flops(shared) == counted.unreplicated_flops(context)
    assert counted.executed_flops(shared) == counted.executed_flops(context)


def test_a_large_layer_is_counted_in_a_moment(small):
    spec = small(length=32).spec
    shape = dataclasses.replace(spec.shape, width=16_384, heads=128, head_width=128, ffn=53_248, layers=126)
    large = dataclasses.replace(spec, shape=shape, sequence_length=131_072, per_device_batch=8)
    declared, counted = undeclared(ATTENTION, ModuleConfig("mha"))
    start = time.process_time()
    flops = [counted.executed_flops(context).total for context in large.contexts]
    assert time.process_time() - start < 1
    assert flops[-1] == pytest.approx(declared.executed_flops(large.context(125)).total, rel=1e-12)


@register_feedforward("asks_for_much", NoOptions, gives=("hidden_BTF",))
class AsksForMuch(nnx.Module):
    """A product of everything that it may be told."""

    def __init__(self, context, options):
        D, F = context.shape.width, context.shape.ffn
        self.layer = context.layer
        self.up = weight((D, F), ("width", "ffn"), fan_in=D)
        self.down = weight((F, D), ("ffn", "width"), fan_in=F)

    def __call__(self, x_BTD, rotary, tokens_BT, x0_BTD, document_BT, step, progress, key, hidden_BTF):
        noise = jax.random.normal(key, x_BTD.shape) * progress * step * tokens_BT[..., None]
        hidden = project(x_BTD + x0_BTD + noise, self.up) + rotary.cos_TJ.mean()
        return project(hidden if hidden_BTF is None else hidden + hidden_BTF, self.down)


def test_what_a_module_asks_for_is_there_with_the_shape_that_its_name_tells(small):
    shape = small().spec.shape
    for documents in (None, 3):
        context = small(end=documents).spec.context(1)
        counted = FEEDFORWARD.lookup(ModuleConfig("asks_for_much")).executed_flops(context)
        assert counted == MatmulFlops(weights=2 * 2 * shape.width * shape.ffn)


@register_attention("endless", NoOptions)
class Endless(nnx.Module):
    """A loop whose turns depend on its values."""

    def __init__(self, context, options):
        self.weight = weight((context.shape.width,) * 2, ("width", None), fan_in=context.shape.width)

    def __call__(self, x_BTD):
        def turn(x_BTD):
            return project(x_BTD, self.weight)

        return jax.lax.while_loop(lambda x_BTD: jnp.max(x_BTD) < 1, turn, x_BTD)


def test_what_cannot_be_counted_is_said_with_the_way_out(small):
    spec = small("endless", layers=1).spec
    with pytest.raises(UserError, match=r"'endless' in layer 0 .*number of turns.*give executed_flops"):
        spec.attention.executed_flops(spec.context(0))
