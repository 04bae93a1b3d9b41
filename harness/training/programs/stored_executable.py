"""Executables as bytes, and loaded onto any devices with the help of their lowering.

XLA's own format of an executable holds no Python objects. Everything else about a program (trees, types,
shardings, donated arguments) comes from its lowering. This wraps a private function of JAX. Without it,
programs are compiled instead of loaded, and each says so.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import jax

try:
    from jax._src import compiler
except ImportError:  # a JAX that moved it
    compiler = None

Device = Any
"""A `jax.Device`; type checkers do not take that name for a class."""

_stored: ContextVar[bytes | None] = ContextVar("stored executable", default=None)
"""Bytes to load in place of the next compilation of this thread."""
_compiled: ContextVar[Any] = ContextVar("compiled executable", default=None)
"""Last executable of XLA that was compiled in this thread, not loaded."""
_compile = getattr(compiler, "compile_or_get_cached", None)
"""Function of JAX that compiles, or None: (backend, computation, devices, compile_options, ...)."""


def executable_bytes(program: jax.stages.Compiled) -> bytes | None:
    """Return the executable that this thread has just compiled, in XLA's format; None for any other, or if
    its backend cannot serialise it. JAX remembers what was loaded for a lowering and returns it where one
    asks to compile; of a loaded executable XLA writes no kernels for CPU."""
    executable: Any = program.runtime_executable()
    if executable is not _compiled.get():
        return None
    try:
        return executable.client.serialize_executable(executable)
    except (AttributeError, NotImplementedError, ValueError, jax.errors.JaxRuntimeError):
        return None


def load_executable(
    lowered: jax.stages.Lowered, devices: Sequence[Device], content: bytes
) -> jax.stages.Compiled:
    """Load an executable of `executable_bytes` that was compiled from an equal lowering, onto these devices.
    Raises what JAX and XLA raise for bytes of another version."""
    if _compile is None:
        raise NotImplementedError("this JAX has no function in which to load an executable")
    token = _stored.set(content)
    try:
        return compile_lowered(lowered, devices)
    finally:
        _stored.reset(token)


def compile_lowered(lowered: jax.stages.Lowered, devices: Sequence[Device]) -> jax.stages.Compiled:
    """Compile a lowering over an abstract mesh for these devices, in mesh order."""
    return lowered.compile(device_assignment=tuple(devices))


def _load_or_compile(*args: Any, **kwargs: Any) -> Any:
    """Stand in for JAX's `_compile`, whatever else its arguments are."""
    assert _compile is not None
    content = _stored.get()
    if content is None:
        executable = _compile(*args, **kwargs)
        _compiled.set(executable)
        return executable
    call = inspect.signature(_compile).bind(*args, **kwargs).arguments
    return call["backend"].deserialize_executable(
        content, executable_devices=call["executable_devices"], compile_options=call["compile_options"]
    )


if _compile is not None:
    setattr(compiler, "compile_or_get_cached", _load_or_compile)  # noqa: B010, since the module may be missing
