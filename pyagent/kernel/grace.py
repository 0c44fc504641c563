"""The RCU grace period after which no running program can hold what it read before.

The kernel waits for one inside an update of an outer map of maps (kernel/bpf/syscall.c,
maybe_wait_bpf_programs; since 4.20). membarrier(2) is no substitute: on one CPU it returns at once.
"""

from __future__ import annotations

import os
import struct

from pyagent.kernel import bpf_syscall as bpf

_ARRAY, _ARRAY_OF_MAPS = 2, 12


class GracePeriod:
    """An outer map that exists only to be updated."""

    def __init__(self) -> None:
        self._inner = bpf.map_create("grace_inner", _ARRAY, 4, 4, 1)
        self._outer = bpf.map_create("grace_outer", _ARRAY_OF_MAPS, 4, 4, 1, inner_map_fd=self._inner)

    def wait(self) -> None:
        """Return once every program run that had started before has ended; some 10 ms."""
        bpf.map_update(self._outer, bytes(4), struct.pack("=I", self._inner))

    def close(self) -> None:
        os.close(self._outer)
        os.close(self._inner)
