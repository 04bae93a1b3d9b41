"""Executables as bytes, and loaded onto any devices with the help of their lowering.

XLA's own format of an executable holds no Python objects. Everything else about a program (trees, types,
shardings, donated arguments) comes from its lowering. This wraps a private function of JAX, and a test guards
it: where JAX moves it, programs are compiled instead of loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import jax
from jax._src import compiler

Device = Any
"""A `jax.Device`; type checkers do not take that name for a class."""

_stored: ContextVar[bytes | None] = ContextVar("stored executable", default=None)
"""Bytes to load in place of the next compilation of this thread."""
_compile = compiler.compile_or_get_cached


def executable_bytes(program: jax.stages.Compiled) -> bytes | None:
    """Return the compiled executable in XLA's format; None if its backend cannot serialise it."""
    executable: Any = program.runtime_executable()
    try:
        return executable.client.serialize_executable(executable)
    except (AttributeError, NotImplementedError, ValueError, jax.errors.JaxRuntimeError):
        return None


def load_executable(
    lowered: jax.stages.Lowered, devices: Sequence[Device], content: bytes
) -> jax.stages.Compiled:
    """Load an executable of `executable_bytes` that was compiled from an equal lowering, onto these devices.
    Raises what JAX and XLA raise for bytes of another version."""
    token = _stored.set(content)
    try:
        return compile_lowered(lowered, devices)
    finally:
        _stored.reset(token)


def compile_lowered(lowered: jax.stages.Lowered, devices: Sequence[Device]) -> jax.stages.Compiled:
    """Compile a lowering over an abstract mesh for these devices, in mesh order."""
    return lowered.compile(device_assignment=tuple(devices))


def _load_or_compile(backend: Any, computation: Any, devices: Any, options: Any, *rest: Any) -> Any:
    content = _stored.get()
    if content is None:
        return _compile(backend, computation, devices, options, *rest)
    _, executable_devices, *_ = rest
    return backend.deserialize_executable(
        content, executable_devices=executable_devices, compile_options=options
    )


compiler.compile_or_get_cached = _load_or_compile
