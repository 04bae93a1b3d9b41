"""Options of the C library's allocator for a process that trains on CPU. Set them before its threads start.

XLA allocates the scratch space of a program at every step. By default glibc maps and unmaps blocks of that
size, and the page faults cost a small model a third of its step time.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
"""Parameters of `mallopt`, from malloc.h."""
HEAP_BYTES = 2**26
"""Largest heap of any thread but the first: glibc maps larger blocks, whatever M_MMAP_MAX says."""
HUGE_BYTES = 2**32
"""Addresses of the first thread's heap that are marked for huge pages; they take memory once written."""
STATE_BYTES = 12
"""Bytes of a parameter with both moments."""


def keep_freed_memory(parameters: int = 0) -> None:
    """Make glibc keep freed memory in place of returning it to the kernel; a no-op with other C libraries.
    `parameters`: of the largest model. One whose scratch space fits in no heap of a thread of its own has
    all threads share the first thread's, in huge pages; smaller models are faster without."""
    mallopt, malloc, free, madvise = map(_c_function, ("mallopt", "malloc", "free", "madvise"))
    if mallopt is None:
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    if parameters * STATE_BYTES <= HEAP_BYTES:
        return
    mallopt(M_ARENA_MAX, 1)
    malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if start := malloc(HUGE_BYTES):
        first_page = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        madvise(first_page, HUGE_BYTES - mmap.PAGESIZE, mmap.MADV_HUGEPAGE)
        free(start)


def _c_function(name: str) -> Any:
    """Return a function of the C library, or None."""
    return getattr(ctypes.CDLL(None), name, None)
