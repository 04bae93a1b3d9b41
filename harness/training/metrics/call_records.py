"""Records of calls inside a model, for metrics of what is neither a parameter nor an output."""

from __future__ import annotations

import functools
import types
from typing import Any, NamedTuple

from flax import nnx

from harness.core.errors import UserError


class CallRecord(NamedTuple):
    """Call of a module's method."""

    arguments: tuple[Any, ...]
    """Arguments by position, without the module."""
    output: Any


def record_calls(module: nnx.Module, method: str = "__call__") -> list[CallRecord]:
    """Return a list to which each later call of a method of this module is appended. Raises UserError if the
    module has no such method.

    Call it on a part of `model.module(params)` before the pass, such as `layers[3].attention`. Scanned layers
    are one loop and have no records (`compute.scan_layers=false` unrolls them).
    """
    kind, records = type(module), []
    original = getattr(kind, method, None)
    if original is None:
        raise UserError(f"{kind.__name__} has no method '{method}', so its calls cannot be recorded.")

    @functools.wraps(original)  # which keeps the names that the method asks for
    def call(self: Any, *arguments: Any, **by_name: Any) -> Any:
        output = original(self, *arguments, **by_name)
        records.append(CallRecord(arguments, output))
        return output

    module.__class__ = types.new_class(kind.__name__, (kind,), {}, lambda names: names.update({method: call}))
    return records
