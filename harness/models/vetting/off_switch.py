"""Check that a mechanism that is switched off is the control, bit for bit."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from harness.config.schema.run import ModelConfig, ModuleConfig
from harness.config.socket_registry import Configured
from harness.core.errors import UserError
from harness.models.model_api import Model
from harness.models.vetting.small_model import (
    UNROLLED,
    abstract_params,
    abstract_rows,
    compile_quickly,
    example_rows,
    perturbed_params,
)


def check_off_switch(key: str, socket: Configured, model: Model) -> None:
    """Raise UserError if the registration gives options that switch it off, and the model with them does not
    compute the losses of the model with the default of the node, bit for bit. `model` is the small one."""
    off = getattr(socket.entry, "off", None)
    if off is None:
        return
    options = {field.name: getattr(off, field.name) for field in dataclasses.fields(off)}
    default = _default_node(key)
    switched_off, control = (
        _token_losses(model, key, node) for node in (ModuleConfig(socket.name, options), default)
    )
    if not np.array_equal(switched_off, control):
        largest = np.max(np.abs(switched_off - control))
        raise UserError(
            f"{key}.name={socket.name} is registered with off={off}, but with these options the loss of a"
            f" token differs by {largest:.1e} from that of {key}.name={default.name}. Skip what is off by a"
            " Python `if`, or leave `off` out."
        )


def _default_node(key: str) -> ModuleConfig:
    node = getattr(ModelConfig(), key.removeprefix("model."), None)
    return ModuleConfig("next_token") if node is None else node


def _token_losses(model: Model, key: str, node: ModuleConfig) -> np.ndarray:
    spec: Any = model.spec
    if key == "objective":
        spec = dataclasses.replace(spec, objective=node)
    else:
        config = dataclasses.replace(spec.config, **{key.removeprefix("model."): node})
        spec = dataclasses.replace(spec, config=config)
    variant = type(model).assemble(spec, UNROLLED)
    lowered = jax.jit(variant.token_losses).lower(abstract_params(variant), abstract_rows(variant))
    return np.asarray(
        compile_quickly(lowered)(variant.stack(perturbed_params(variant)), example_rows(variant))
    )
