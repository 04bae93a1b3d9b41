"""Axes that send little lie over slow links, those that send much inside of a host."""

from dataclasses import dataclass

import jax
import numpy as np
import pytest

from harness.parallel.sharding.mesh import order_devices


@dataclass(frozen=True)
class Device:
    id: int
    process_index: int
    platform: str = "gpu"
    device_kind: str = "H100"
    slice_index: int | None = None


def machine(hosts, each):
    """Devices host by host, shuffled: JAX promises no order between hosts."""
    devices = [Device(host * each + at, host) for host in range(hosts) for at in range(each)]
    return [devices[at] for at in np.random.default_rng(0).permutation(len(devices))]


SIZES = {
    "data over hosts": (2, 4, {"data": 2, "fsdp": 1, "context": 2, "tensor": 2, "expert": 1}, {"data"}),
    "then fsdp": (4, 4, {"data": 2, "fsdp": 4, "tensor": 2, "expert": 1}, {"data", "fsdp"}),
    "experts before tensor": (4, 2, {"data": 1, "fsdp": 1, "tensor": 2, "expert": 4}, {"expert"}),
    "three hosts": (3, 4, {"data": 6, "fsdp": 1, "tensor": 2, "expert": 1}, {"data"}),
}


@pytest.mark.parametrize(("hosts", "each", "sizes", "slow"), SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("sliced", [False, True])
def test_only_the_outer_axes_leave_a_host(hosts, each, sizes, slow, sliced):
    devices = machine(hosts, each)
    if sliced:  # one process a slice of two hosts would say nothing
        devices = [Device(d.id, 0, slice_index=d.process_index) for d in devices]
    grid = order_devices(devices, sizes)
    host_of = np.vectorize(lambda device: device.id // each)(grid)
    assert grid.shape == tuple(sizes.values())
    assert {device.id for device in grid.flat} == set(range(hosts * each))
    crossed = {axis for at, axis in enumerate(sizes) if np.diff(host_of, axis=at).any()}
    assert crossed == slow


def test_devices_of_one_host_and_of_unequal_hosts_keep_their_order():
    sizes = {"data": 2, "fsdp": 1, "tensor": 3, "expert": 1}
    unequal = [device for device in machine(2, 4) if device.id < 6]
    for devices in (machine(1, 6), unequal, jax.devices()[:6]):
        assert list(order_devices(devices, sizes).flat) == list(devices)


def test_simulated_devices_of_several_processes_keep_their_order():
    devices = [Device(at, at // 2, platform="cpu") for at in range(4)]
    assert list(order_devices(devices, {"data": 2, "tensor": 2}).flat) == devices
