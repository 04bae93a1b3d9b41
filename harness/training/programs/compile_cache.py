"""Compilation cache: each program is compiled once and loaded by every run that shares it.

JAX's persistent cache misses between sibling sub-meshes, because its key has the device ids. Here an
executable is serialised under our own key and loaded onto the devices of a run: hundredths of a second
instead of seconds, and the same bits. This relies on private classes of JAX (the unpickler of
`serialize_executable`); where they fail, the program is compiled instead.
"""

from __future__ import annotations

import fcntl
import io
import os
import pickle
import platform
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import serialize_executable
from jax.extend import backend as jax_backend

from harness.core.atomic_files import write_bytes
from harness.core.cache_dir import cache_dir
from harness.core.file_locks import lock_file
from harness.core.hashing import hash_json
from harness.parallel.processes.agreement import to_host
from harness.parallel.processes.jax_distributed import COLLECTIVES
from harness.records.run.environment import Environment
from harness.records.run.provenance import package_versions

Program = jax.stages.Compiled
"""Compiled program, called like the function that it was compiled from."""
Device = Any
"""A `jax.Device`; type checkers do not take that name for a class."""

MAX_IN_FLIGHT = 8
"""Number of programs of a run in flight at once. On CPU XLA starts 32 per device. With more, a device may
wait for a slot while the others wait for it in a collective: a deadlock (jaxlib 0.10.2)."""


def compile_or_load(
    name: str, key: Any, lower: Callable[[], jax.stages.Lowered], devices: Sequence[Device]
) -> Program:
    """Load the program `name` for these devices from the cache, or compile and store it.

    `key` is plain data that determines the program on a mesh of this size; machine, versions and XLA flags
    are added here. A host compiles one program at a time: parallel compilations have aborted processes on an
    overloaded CPU.
    """
    inputs = [key, len(devices), compile_environment()]
    if jax.distributed.is_initialized():
        inputs.append({"processes": jax.process_count()})
    folder = cache_dir("programs")
    path = folder / f"{name}-{hash_json(inputs)}.bin"
    program = _load(path, devices)
    if program is not None:
        return program
    with (folder / "compile.lock").open("a") as file:
        lock_file(file.fileno(), fcntl.LOCK_EX, folder, "choose another cache with AB_HARNESS_CACHE=FOLDER")
        program = _load(path, devices)
        if program is None:
            program = lower().compile()
            _store(path, program, devices)
    return program


def bounded_results(dispatched: Iterable[jax.Array]) -> Iterator[np.ndarray]:
    """Yield the results on the host, in order, with at most MAX_IN_FLIGHT programs in flight."""
    pending = deque()
    for array in dispatched:
        pending.append(array)
        if len(pending) == MAX_IN_FLIGHT:
            yield to_host(pending.popleft())
    yield from map(to_host, pending)


def compile_environment() -> dict[str, Any]:
    """Return what determines a program's bits besides the config: versions, machine, XLA flags."""
    return {
        "versions": package_versions(),
        "platform": jax_backend.get_backend().platform,
        "machine": [platform.machine(), _cpu_features()],
        "flags": os.environ.get("XLA_FLAGS", ""),
    }


def current_environment(devices: Sequence[Device]) -> Environment:
    """Return the environment of a run on these devices, for run.json."""
    environment = compile_environment()
    machine, features = environment["machine"]
    # Sums over three or more devices depend on the library of CPU collectives in their last bits.
    has_collectives = jax.distributed.is_initialized() and environment["platform"] == "cpu"
    return Environment(
        platform=environment["platform"],
        kind=devices[0].device_kind,
        devices=len(devices),
        process_devices=jax.local_device_count(),
        cores=len(os.sched_getaffinity(0)),
        machine=machine,
        features=features.partition(":")[2].strip(),
        flags=environment["flags"],
        versions=environment["versions"],
        collectives=COLLECTIVES if has_collectives else "",
    )


def _cpu_features() -> str:
    """Return the CPU's features. Compiled code may use any of them, so the cache must miss on another CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _store(path: Path, compiled: jax.stages.Compiled, devices: Sequence[Device]) -> None:
    try:
        payload, arguments, results = serialize_executable.serialize(compiled)
        write_bytes(path, pickle.dumps((payload, arguments, results, [device.id for device in devices])))
    except (ValueError, NotImplementedError, AttributeError, pickle.PicklingError, TypeError, OSError):
        path.unlink(missing_ok=True)  # the next run compiles again


def _load(path: Path, devices: Sequence[Device]) -> Program | None:
    try:
        payload, arguments, results, ids = pickle.loads(path.read_bytes())
        unpickler = _DeviceRemapUnpickler(payload, dict(zip(ids, devices, strict=True)))
        executable, infos, no_kwargs = unpickler.load()
        inputs = arguments.unflatten(infos)
        return jax.stages.Compiled(executable.load(), [], inputs, results, no_kwargs=no_kwargs)
    except FileNotFoundError:
        return None
    except Exception:  # another JAX version, or a damaged file: compile it again
        path.unlink(missing_ok=True)
        return None


class _DeviceRemapUnpickler(pickle.Unpickler):
    """Unpickler that puts an executable and its shardings onto other devices."""

    def __init__(self, payload: bytes, devices: dict[int, Device]):
        super().__init__(io.BytesIO(payload))
        self._devices = devices
        self._client: Any = next(iter(devices.values())).client

    def persistent_load(self, pid: Any) -> Any:
        """Resolve the persistent ids of `serialize_executable`: executable, device, client."""
        match pid:
            case ("exec", content):
                return self._executable(content)
            case ("device", number):
                return self._devices[number]
            case ("client",):
                return self._client
        raise pickle.UnpicklingError(pid)

    def _executable(self, content: bytes) -> Any:
        from jax._src.compiler import get_compile_options
        from jax._src.lib import xla_client  # pyright: ignore[reportPrivateImportUsage]

        devices = tuple(self._devices.values())
        ids = np.array([[device.id for device in devices]])
        options = get_compile_options(num_replicas=1, num_partitions=len(devices), device_assignment=ids)
        return self._client.deserialize_executable(
            content, executable_devices=xla_client.DeviceList(devices), compile_options=options
        )
