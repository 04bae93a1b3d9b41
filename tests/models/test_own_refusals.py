"""What a model of a user's own cannot be: one sentence each, before anything is trained."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from harness.config.schema.cluster import MeshConfig
from harness.config.schema.finetune import FinetuneConfig, FinetuneMethod
from harness.config.schema.run import ComputeConfig, LossConfig, ModelConfig, ModuleConfig, Precision, Remat
from harness.core.errors import UserError
from harness.extend import register_model
from harness.models import build
from harness.models.families.model_family import FAMILIES, configured_family
from harness.training.trainable.trainable_model import make_trainable
from tests.models.own_models import token_losses
from tests.models.test_own_model import IMAGE, V, config_of

CALLS: list[int] = []
NUMBERS = itertools.count()


def check(module, *, config=None, **facts):
    """Register the module, build a run's model of it, and vet that, as `harness.worker.describe` does."""
    facts = {"data": ("text",), "loss_unit": "nats a token"} | facts
    register_model("test_refused", **facts)(module)
    try:
        config = config or config_of("test_refused")
        family = configured_family(config).entry
        family.check(build(config, V))
    finally:
        del FAMILIES.entries["test_refused"]


class Bigram(nnx.Module):
    """The smallest model that is fine; the others each have one mistake."""

    def __init__(self, context, options, rngs):
        self.table = nnx.Embed(context.vocabulary, 4, rngs=rngs)
        self.head = nnx.Linear(4, context.vocabulary, rngs=rngs)
        self.add(context, rngs)

    def add(self, context, rngs):
        pass

    def logits(self, tokens_BT):
        return self.head(self.table(tokens_BT))

    def loss(self, tokens_BT1) -> Any:
        return token_losses(self.logits(tokens_BT1[:, :-1]), tokens_BT1[:, 1:])


def test_the_smallest_model_passes():
    check(Bigram)


class NoParameter(Bigram):
    def __init__(self, context, options, rngs):
        self.vocabulary = context.vocabulary

    def logits(self, tokens_BT):
        return jax.nn.one_hot(tokens_BT, self.vocabulary)


class KeepsStatistics(Bigram):
    def add(self, context, rngs):
        self.norm = nnx.BatchNorm(4, rngs=rngs)


class KeepsGenerator(Bigram):
    def add(self, context, rngs):
        self.dropout = nnx.Dropout(0.1, rngs=rngs)


class KeepsArray(Bigram):
    def add(self, context, rngs):
        self.mask = jnp.ones(4)


class HalfPrecision(Bigram):
    def add(self, context, rngs):
        self.gain = nnx.Param(jnp.ones(4, jnp.bfloat16))


class StrangeAxis(Bigram):
    def add(self, context, rngs):
        normal = nnx.with_partitioning(nnx.initializers.normal(), ("vocabulry", None))
        self.more = nnx.Linear(4, 4, kernel_init=normal, rngs=rngs)


class FailsToBuild(Bigram):
    def add(self, context, rngs):
        self.more = nnx.Linear(4, 4, rngs=rngs)
        if self.more.kernel[0, 0] > 0:
            self.more = None


class BranchesOnValues(Bigram):
    def loss(self, tokens_BT1):
        return super().loss(tokens_BT1) if tokens_BT1[0, 0] > 3 else super().loss(tokens_BT1) * 2


class DrawsItsOwn(Bigram):
    def loss(self, tokens_BT1):
        losses_BT = super().loss(tokens_BT1)
        return losses_BT + jax.random.normal(jax.random.key(0), losses_BT.shape)


class DrawsFromNumpy(Bigram):
    def loss(self, tokens_BT1):
        return super().loss(tokens_BT1) * np.float32(np.random.default_rng().normal())


class CountsItsCalls(Bigram):
    def loss(self, tokens_BT1):
        CALLS.append(1)
        return super().loss(tokens_BT1)


class NumbersItsTraces(Bigram):
    def loss(self, tokens_BT1):
        return super().loss(tokens_BT1) * float(1 + next(NUMBERS))


class RemembersIt(Bigram):
    def add(self, context, rngs):
        self.calls = 0

    def loss(self, tokens_BT1):
        self.calls += 1
        return super().loss(tokens_BT1)


class ChangesParameter(Bigram):
    def loss(self, tokens_BT1):
        losses_BT = super().loss(tokens_BT1)
        self.head.bias[...] = self.head.bias[...] * 0.9
        return losses_BT


class OneNumber(Bigram):
    def loss(self, tokens_BT1):
        return jnp.mean(super().loss(tokens_BT1))


class TwoArrays(Bigram):
    def loss(self, tokens_BT1) -> Any:
        losses_BT = super().loss(tokens_BT1)
        return losses_BT, losses_BT


class NarrowLoss(Bigram):
    def loss(self, tokens_BT1):
        return super().loss(tokens_BT1).astype(jnp.bfloat16)


class IdleParameter(Bigram):
    def add(self, context, rngs):
        self.idle = nnx.Linear(4, 4, rngs=rngs)


class LooksAhead(Bigram):
    def logits(self, tokens_BT):
        x_BTD = self.table(tokens_BT)
        return self.head(x_BTD + jnp.mean(x_BTD, axis=1, keepdims=True))


class AsksTooMuch(Bigram):
    def loss(self, tokens_BT1, stepp=None):
        return super().loss(tokens_BT1)


MISTAKES = [
    (NoParameter, "the model has no parameter"),
    (KeepsStatistics, r"norm.mean is of type BatchStat, which no run keeps. Keep nnx.Param alone"),
    (KeepsGenerator, r"dropout.rngs\S* is of type \w+, which no run keeps. Build its layer with rngs=False"),
    (KeepsArray, "mask is of type jax.Array, which no run keeps. Make constants with numpy"),
    (HalfPrecision, "gain is bfloat16, but parameters are float32"),
    (StrangeAxis, "more.kernel has an axis named 'vocabulry'.*vocabulary"),
    (FailsToBuild, "its constructor cannot be traced .TracerBoolConversionError"),
    (BranchesOnValues, "its loss cannot be traced .TracerBoolConversionError"),
    (DrawsItsOwn, "its loss draws random numbers of its own. Ask for `key`"),
    (DrawsFromNumpy, "two traces of its loss differ"),
    (CountsItsCalls, "its loss changes CALLS, a Python side effect"),
    (NumbersItsTraces, "two traces of its loss differ"),
    (RemembersIt, "its loss changes the module"),
    (ChangesParameter, "its loss changes the module"),
    (OneNumber, r"its loss is float32 \[\]. Return float32 \[B\] or \[B, data.sequence_length\]"),
    (TwoArrays, "its loss returns 2 arrays"),
    (NarrowLoss, r"its loss is bfloat16 \[8, 12\]"),
    (IdleParameter, "idle.bias does not enter its loss"),
    (LooksAhead, "its loss at a token changes when later tokens change"),
    (AsksTooMuch, "its loss asks for stepp.*step"),
]


@pytest.mark.parametrize(("module", "said"), MISTAKES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_mistake_is_one_sentence(module, said):
    with pytest.raises(UserError, match=said) as raised:
        check(module)
    assert str(raised.value).startswith("model.kind=test_refused: ")


def test_a_model_that_predicts_no_next_token_may_look_ahead():
    check(LooksAhead, causal=False)


UNKNOWN = [
    ({"model": {"width": 64}}, "model.width is for decoders"),
    ({"model": {"base_width": 8}}, "model.base_width is for decoders"),
    ({"model": {"attention": ModuleConfig("gqa")}}, "model.attention is for decoders"),
    ({"compute": ComputeConfig(remat=Remat.dots)}, r"compute=.remat: Remat.dots. cannot be known"),
    ({"compute": ComputeConfig(parameter_dtype=Precision.bfloat16)}, "compute=.parameter_dtype"),
    ({"loss": LossConfig(z_loss=0.1)}, "loss=.z_loss: 0.1"),
    ({"objective": ModuleConfig("mtp")}, "objective=.name: mtp"),
    ({"mesh": MeshConfig(context=2)}, "mesh=.context: 2"),
]


@pytest.mark.parametrize(("changes", "said"), UNKNOWN, ids=lambda value: str(value)[:40])
def test_what_cannot_be_known_is_refused(changes, said):
    config = config_of("test_refused")
    for node, value in changes.items():
        if node == "model":
            value = ModelConfig(kind="test_refused", **value)
        setattr(config, node, value)
    with pytest.raises(UserError, match=said):
        check(Bigram, config=config)


def test_names_and_data_of_a_family_are_checked():
    with pytest.raises(UserError, match=r"model.kind=test_rn is not registered.*test_rnn"):
        build(config_of("test_rn"), V)
    with pytest.raises(UserError, match=r"model.options.widht does not exist.*width"):
        build(config_of("test_rnn", widht=3), V)
    with pytest.raises(UserError, match=r"model.kind=test_rnn is for text, but data=test is images"):
        build(config_of("test_rnn"), V, image=IMAGE)


def test_no_run_is_fine_tuned_from_a_checkpoint_of_an_unknown_model():
    config: Any = config_of("test_rnn")
    config.finetune = FinetuneConfig(FinetuneMethod.full, parent="runs/x")
    with pytest.raises(UserError, match=r"finetune.method=full is for decoders only.*model.kind=test_rnn"):
        make_trainable(config, build(config, V))
