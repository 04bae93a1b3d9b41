"""Objectives from outside, right and wrong."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from harness.config.schema.run import ModuleConfig
from harness.core.errors import UserError
from harness.models import Model
from harness.models.sockets.entries import register_objective
from harness.models.text.objective import ObjectiveLoss, cross_entropy
from harness.models.vetting.objectives import check_objective
from harness.models.vetting.small_model import small_model
from harness.models.vetting.vet import vet


def shrunk(model: Model) -> Any:
    """The model at the size at which it is vetted."""
    return small_model(model)


@dataclass(frozen=True)
class Shifts:
    """Tokens between the last that is shown and the one that is asked for; 0 shows it."""

    shift: int = 1


@register_objective("shifted", Shifts)
class Shifted(nnx.Module):
    def __init__(self, context, options, new_layer):
        self.shift = options.shift

    def __call__(self, forward, tokens_BT1):
        loss_BT = cross_entropy(forward(tokens_BT1).logits_BTV, jnp.roll(tokens_BT1, -self.shift, 1))
        known_BT = loss_BT[:, : loss_BT.shape[1] - self.shift]
        return ObjectiveLoss(jnp.mean(known_BT), known_BT)


@dataclass(frozen=True)
class Masks:
    """How honest the masks are."""

    hides: bool = True
    """Put the mask in place of what is asked for."""
    judges_hidden: bool = True


@register_objective("masked", Masks)
class Masked(nnx.Module):
    """Half of the tokens are asked for where they stand; judged by the same."""

    def __init__(self, context, options, new_layer):
        self.options = options

    def __call__(self, forward, tokens_BT1, key):
        loss = self._loss(forward, tokens_BT1, key, self.options.hides)
        return ObjectiveLoss(jnp.mean(loss), loss)

    def judge(self, forward, tokens_BT1):
        return self._loss(forward, tokens_BT1, jax.random.key(0), self.options.judges_hidden)[:, 1:]

    def _loss(self, forward, tokens_BT1, key, hides):
        is_asked_BT = jax.random.bernoulli(key, 0.5, tokens_BT1.shape)
        shown_BT = jnp.where(is_asked_BT & hides, 0, tokens_BT1)
        return 2 * is_asked_BT * cross_entropy(forward(shown_BT).logits_BTV, tokens_BT1)


def with_objective(small, name, **options):
    model = small(layers=1)

    spec = dataclasses.replace(model.spec, objective=ModuleConfig(name, options))
    return type(model).assemble(spec, model.compute)


@pytest.mark.parametrize(("name", "options"), [("shifted", {}), ("shifted", {"shift": 3}), ("masked", {})])
def test_an_honest_objective_passes(small, name, options):
    check_objective(f"objective.name={name}", shrunk(with_objective(small, name, **options)))


def test_a_bound_is_not_held_to_causality(small):
    vet(with_objective(small, "masked"))


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("shifted", {"shift": 0}, r"^objective\.name=shifted is .* looks at the future\. Compare the logits"),
        ("shifted", {"shift": -2}, "^objective.name=shifted is .* looks at the future"),
        ("masked", {"hides": False}, "^objective.name=masked is .* looks at the future"),
        ("masked", {"judges_hidden": False}, r"^objective\.name=masked\.judge is .* looks at the future"),
    ],
)
def test_one_that_shows_what_it_asks_for_is_refused(small, name, options, sentence):
    model = shrunk(with_objective(small, name, **options))
    with pytest.raises(UserError, match=sentence):
        check_objective(f"objective.name={name}", model)
