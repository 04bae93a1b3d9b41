"""Registry of model families: `model.kind` names one, and the family says what its models can do.

@register_model("mixer", Options, data=("images",), loss_unit="nats a label")
class Mixer(nnx.Module):
    def __init__(self, context: ModelContext, options: Options, rngs: nnx.Rngs): ...
    def loss(self, rows_BR): ...  # float32 [B, T] or [B]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.config.schema.run import Config, ModuleConfig
from harness.config.socket_registry import Configured, Registry
from harness.core.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from harness.models.model_api import Model


@dataclass(frozen=True)
class DataShape:
    """Shape of the examples that a model reads."""

    vocabulary: int
    """Number of tokens; of images, labels and one for no label."""
    end_token: int | None = None
    """Token that ends a document."""
    image: tuple[int, int, int] | None = None
    """Height, width and channels of images."""
    row: tuple[int, ...] | None = None
    """Shape of an example of data of a user's own; None: text or images."""
    dtype: str = "int32"
    """Dtype of the examples."""


@dataclass(frozen=True)
class ModelFamily:
    """A registered family of models."""

    name: str
    options: type
    implementation: Any
    build: Callable[[Configured[ModelFamily], Config, DataShape], Model]
    """Builder of a run's model. Raises UserError for a config that has none."""
    data: tuple[str, ...]
    """Kinds of data (`data.kind`) that its models read."""
    loss_unit: str
    """Unit of the loss, for reports."""
    check: Callable[[Any], None]
    """Checks of a model before anything is trained. Raises UserError."""
    noun: str
    """Words for one of its models, in messages."""
    finetunes: bool = False
    """True if a run may start from a checkpoint (`finetune.method`)."""
    splits_sequences: bool = False
    """True if devices can share a sequence (`mesh.context`)."""
    exports: bool = False
    """True if other libraries have such models (`harness export`)."""


FAMILIES: Registry[ModelFamily] = Registry("model", "model.kind")
NATS = "nats a token"
"""Unit of a cross-entropy of text, which bits a byte follow from."""
SHIPPED = ("decoder", "dit")
"""Families of the harness, each with a node in conf/model/."""


def configured_family(config: Config) -> Configured[ModelFamily]:
    """Return the family of a config with its options. Raises UserError if none of that name is registered."""
    kind = config.model.kind
    if kind not in FAMILIES.entries:
        raise UserError(
            f"model.kind={kind} is not registered: {did_you_mean(kind, FAMILIES.entries)}"
            " (List a module of your own in `imports`.)"
        )
    return FAMILIES.lookup(ModuleConfig(kind, config.model.options), "model")


def check_data_kind(family: ModelFamily, kind: str, config: Config) -> None:
    """Raise UserError unless the family reads data of this kind."""
    if kind not in family.data:
        readers = [name for name, entry in FAMILIES.entries.items() if kind in entry.data]
        choices = [f"{'model' if name in SHIPPED else 'model.kind'}={name}" for name in readers]
        choices = choices or [f"data=({kind!r},) at the registration of a model of your own"]
        raise UserError(
            f"model.kind={family.name} is for {' or '.join(family.data)}, but data={config.data.name} is"
            f" {kind}. Choose {' or '.join(choices)}, or other data."
        )
