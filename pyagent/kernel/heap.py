"""How the C library's allocator behaves in a process that lives long."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # malloc.h of glibc
_LARGE = 128 * 1024


def give_memory_back() -> None:
    """Let large pieces go back to the system when they are freed, and threads share one heap.

    By default glibc keeps pieces of up to 32 MB once one of that size was freed, and has a heap for each
    thread: after the first lists that would be tens of megabytes. Call before threads start. Other C
    libraries have no such habits, and no `mallopt`.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return
    for what, value in ((M_ARENA_MAX, 1), (M_MMAP_THRESHOLD, _LARGE), (M_TRIM_THRESHOLD, _LARGE)):
        mallopt(what, value)
