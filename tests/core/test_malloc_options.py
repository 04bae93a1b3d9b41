"""Memory that a step frees serves the next one without a page fault, however large its blocks are."""

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource, sys, threading
from harness.core.jax_setup.malloc_options import keep_freed_memory
keep_freed_memory(int(sys.argv[1]))
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
size = int(sys.argv[2])

def step():
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    libc.free(block)

def steps():
    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=steps)
thread.start()
thread.join()
"""


def faults(parameters: int, size: int) -> int:
    """Return the page faults of four steps after the first, which allocate `size` bytes in a thread."""
    command = [sys.executable, "-c", PROGRAM, str(parameters), str(size)]
    return int(subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone")
@pytest.mark.parametrize(("parameters", "size"), [(100_000, 2**25), (10_000_000, 2**27)])
def test_a_freed_block_is_used_again(parameters, size):
    assert faults(parameters, size) < 100


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone")
def test_a_thread_of_its_own_heap_maps_large_blocks_anew():
    """The reason for one heap: without it each step takes its pages from the kernel."""
    assert faults(100_000, 2**27) > 4 * 2**27 // 2**21
