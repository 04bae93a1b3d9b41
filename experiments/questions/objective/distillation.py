"""Distillation: CE + c T^2 KL(teacher, student) at temperature T (arXiv:1503.02531, section 2)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from harness.extend import ObjectiveLoss, cross_entropy, open_reference, register_objective


@dataclass(frozen=True)
class Options:
    teacher: str
    """A trained run, RUN or RUN@STEP."""
    weight: float = 1.0
    temperature: float = 2.0


@register_objective("distillation", Options)
class Distillation(nnx.Module):
    def __init__(self, context, options, new_layer):
        self.options, self.vocabulary = options, context.shape.vocabulary
        self.teacher = open_reference(options.teacher, "objective.options.teacher")

    def __call__(self, forward, tokens_BT1):
        logits_BTV = forward(tokens_BT1[:, :-1]).logits_BTV
        loss_BT = cross_entropy(logits_BTV, tokens_BT1[:, 1:])
        temperature = self.options.temperature
        student_BTV = jax.nn.log_softmax(logits_BTV[..., : self.vocabulary] / temperature)
        teacher_BTV = jax.nn.log_softmax(self.teacher.logits(tokens_BT1[:, :-1]) / temperature)
        kl_BT = jnp.sum(jnp.exp(teacher_BTV) * (teacher_BTV - student_BTV), axis=-1)
        minimised = jnp.mean(loss_BT) + self.options.weight * temperature**2 * jnp.mean(kl_BT)
        return ObjectiveLoss(minimised, loss_BT)
