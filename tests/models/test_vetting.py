"""A whole model with parts from outside, right and wrong in one way each."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from harness.config.schema.data import DataConfig
from harness.config.schema.run import ComputeConfig, Config, ModelConfig, ModuleConfig, ScaleConfig
from harness.core.errors import UserError
from harness.models import Model, build
from harness.models.attention.mha import MultiHeadAttention
from harness.models.diffusion.conditioning.base import BranchModulation, Conditioning, num_branches
from harness.models.layers import project
from harness.models.parameters import constant, weight, zeros
from harness.models.registry import register_attention, register_conditioning, register_feedforward
from harness.models.sockets.entries import register_embedding
from harness.models.sockets.side_inputs import SideOutputs
from harness.models.vetting import vet as vetting
from harness.models.vetting.execution import check_execution
from harness.models.vetting.gradients import check_gradients
from harness.models.vetting.later_tokens import check_predictions
from harness.models.vetting.off_switch import check_off_switch
from harness.models.vetting.small_model import Executable, perturbed_params, small_model
from harness.models.vetting.vet import vet
from tests.models.mechanisms import FEEDFORWARDS, MECHANISMS


def shrunk(model: Model) -> Any:
    """The model at the size at which it is vetted."""
    return small_model(model)


@dataclass(frozen=True)
class Flaws:
    """What is wrong; nothing by default."""

    later: int = 0
    documents: bool = True
    idle: bool = False
    by_layer: bool = False
    remembers: bool = False
    batch: bool = False
    infinite: bool = False
    fails: bool = False
    scale: float = 1.0


@register_feedforward("flawed", Flaws)
class Flawed(nnx.Module):
    """A shift by one token between two products, which asks for tokens and documents."""

    def __init__(self, context, options):
        D = context.shape.width
        self.options, self.layer = options, context.layer
        self.weight = weight((D, D), ("width", None), fan_in=D)
        self.gate = zeros((D, D), ("width", None))
        self.calls = 0

    def __call__(self, x_BTD, document_BT, tokens_BT):
        options = self.options
        shifted_BTD = jnp.roll(x_BTD, 1, axis=1).at[:, 0].set(0)
        if options.later:
            shifted_BTD = jnp.roll(x_BTD, -options.later, axis=1)
        if options.documents and document_BT is not None:
            same_BT = document_BT == jnp.roll(document_BT, 1, axis=1)
            shifted_BTD = shifted_BTD * same_BT[..., None]
        gate_BTD = project(x_BTD, self.gate)
        if options.idle:
            gate_BTD = jax.lax.stop_gradient(gate_BTD)
        y_BTD = options.scale * jnp.tanh(project(shifted_BTD + x_BTD, self.weight) + gate_BTD)
        if options.by_layer:
            y_BTD = y_BTD * (1 + self.layer)
        if options.remembers:
            Flawed.turn = Flawed.turn + 1
            y_BTD = y_BTD * Flawed.turn
        if options.infinite:
            y_BTD = y_BTD / (tokens_BT[..., None] - tokens_BT[..., None])
        if options.fails:
            y_BTD = y_BTD.reshape(1, 2, 3)
        return y_BTD, SideOutputs(jnp.square(jnp.mean(y_BTD)) if options.batch else None)


Flawed.turn = 0


def flawed(small, end=None, microbatches=1, **options):
    compute = ComputeConfig(microbatches=microbatches)
    return small(feedforward=ModuleConfig("flawed", options), end=end, compute=compute, length=32)


def test_one_that_keeps_its_word_passes_and_is_checked_once(small, monkeypatch):
    checked = []
    for name in ("check_predictions", "check_gradients", "check_execution", "check_off_switch"):
        check = getattr(vetting, name)
        monkeypatch.setattr(
            vetting, name, lambda *given, n=name, check=check: checked.append(n) or check(*given)
        )
    vet(flawed(small, end=3, scale=2.0, microbatches=2))
    assert checked == ["check_predictions", "check_gradients", "check_execution", "check_off_switch"]
    vet(flawed(small, end=3, scale=2.0, microbatches=2))
    assert len(checked) == 4


def test_what_ships_needs_no_check(small, monkeypatch):
    monkeypatch.setattr(vetting, "check_layer_parts", None)
    vet(small("gqa", options={"kv_heads": 2}))


def test_one_that_cannot_be_traced_is_refused_with_the_reason(small):
    with pytest.raises(UserError, match="'flawed' in layer 0 cannot be counted: TypeError: cannot reshape"):
        vet(flawed(small, fails=True))


@dataclass(frozen=True)
class Strength:
    """How much is added to the keys' own values, and whether nothing is added by adding zeros."""

    strength: float = 0.5
    always: bool = False


class Stronger(MultiHeadAttention):
    """Attention plus a share of the values of the token itself."""

    def __init__(self, context, options):
        super().__init__(context)
        self.options = options
        self.share = constant(context.shape.heads, "heads", 1.0)

    def attend_heads(self, x_BTD, rotary):
        mixed_BTHK = super().attend_heads(x_BTD, rotary)
        if not self.options.strength and not self.options.always:
            return mixed_BTHK
        added_BTHK = project(x_BTD, self.value) * jnp.asarray(self.share[...])[:, None]
        return mixed_BTHK + (self.options.strength + 1e-9 * self.options.always) * added_BTHK


register_attention("stronger", Strength, off=Strength(0.0))(Stronger)


@register_attention("never_off", Strength, off=Strength(0.0, always=True))
class NeverOff(Stronger):
    """The same, registered with options that do not quite switch it off."""


def test_a_mechanism_that_is_off_is_the_control_bit_for_bit(small):
    small_one = shrunk(small("stronger", layers=1))
    check_off_switch("model.attention", small_one.spec.attention, small_one)
    other = shrunk(small("never_off", layers=1))
    with pytest.raises(
        UserError, match=r"model\.attention\.name=never_off .*differs by .* model\.attention\.name=mha"
    ):
        check_off_switch("model.attention", other.spec.attention, other)


NAME = r"^model\.feedforward\.name=flawed: "
BROKEN = {
    "later": ({"later": 1}, None, 1, r"tokens up to \d+ changes when tokens after \d+ change.*earlier"),
    "documents": (
        {"documents": False},
        3,
        1,
        "a document before its own changes, but data.mask_documents=true",
    ),
    "idle": ({"idle": True}, None, 1, r"no gradient reaches the parameter layers\.0\.feedforward\.gate"),
    "scan": ({"by_layer": True}, None, 1, r"with compute\.scan_layers=true the loss is .*`period`"),
    "remat": ({"remembers": True}, None, 1, r"with compute\.remat=full .*keep no state"),
    "batch": ({"batch": True}, None, 2, r"with compute\.microbatches=2 .* over sequences"),
    "infinite": ({"infinite": True}, None, 1, "the loss is not finite before the first step"),
}


@pytest.mark.parametrize(("options", "end", "microbatches", "sentence"), BROKEN.values(), ids=BROKEN)
def test_one_that_does_not_is_refused_in_one_sentence(small, options, end, microbatches, sentence):
    with pytest.raises(UserError, match=NAME + ".*" + sentence):
        vet(flawed(small, end, microbatches, **options))


@dataclass(frozen=True)
class Shift:
    idle: bool = False
    """Leave the shift out."""


@register_conditioning("shift", Shift)
class ShiftOnly(Conditioning):
    """A shift of each branch by the condition."""

    def __init__(self, context, options):
        self.idle, self.branches = options.idle, num_branches(context)
        self.shift = weight((context.shape.width,) * 2, ("width", None), fan_in=context.shape.width)

    def __call__(self, condition_B1D):
        shift_B1D = project(condition_B1D, self.shift) * (not self.idle)
        return [BranchModulation(lambda x_BTD: x_BTD + shift_B1D, lambda y_BTD: y_BTD)] * self.branches


@pytest.mark.slow  # two programs of an image model
def test_a_conditioning_is_vetted_with_its_image_model():
    shape: dict[str, Any] = {"width": 8, "layers": 1, "heads": 2, "head_width": 4, "ffn": 12, "patch": 2}

    def model(idle):
        config = Config(
            model=ModelConfig(kind="dit", conditioning=ModuleConfig("shift", {"idle": idle}), **shape),
            scale=ScaleConfig("tiny", 3_000, 10_000, 4),
            data=DataConfig("test", sequence_length=6),
        )
        return build(config, 5, image=(6, 4, 3))

    vet(model(idle=False))
    with pytest.raises(UserError, match=r"^model\.conditioning\.name=shift: no gradient reaches .*\.shift"):
        vet(model(idle=True))


@register_embedding("peeks")
class Peeks(nnx.Module):
    """Adds the row of the next token, which is the one to predict: a leak by a single token."""

    def __init__(self, context, options):
        pass

    def __call__(self, x_BTD):
        return x_BTD + jnp.roll(x_BTD, -1, axis=1)


def test_a_look_at_the_very_token_to_predict_is_found(small):
    with pytest.raises(UserError, match=r"^model\.embedding\.name=peeks: .* tokens up to (\d+) .* after \1 "):
        vet(small(embedding=ModuleConfig("peeks"), layers=1))


SHIPPED = [("attention", name, options) for name, options in MECHANISMS.values()]
SHIPPED += [("feedforward", "moe", options) for options in FEEDFORWARDS.values()]


@pytest.mark.slow  # two programs for each of what ships
@pytest.mark.parametrize(("socket", "name", "options"), SHIPPED)
def test_no_check_is_wrong_about_what_ships(small, socket, name, options):
    node = {"name": name, "options": options} if socket == "attention" else {}
    if socket == "feedforward":
        node = {"feedforward": ModuleConfig(name, options)}
    one = shrunk(small(**node, length=32, end=3))
    executable = Executable(one, perturbed_params(one))
    check_predictions(name, executable)
    check_gradients(name, executable)
    check_execution(name, executable, 2)
