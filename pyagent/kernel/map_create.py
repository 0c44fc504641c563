"""A new map of the layout, for one that is pinned or copied into."""

from __future__ import annotations

import os
import struct

from pyagent.datapath.layout import MapSpec, MapType
from pyagent.kernel import bpf_syscall as bpf


def create_map(spec: MapSpec) -> int:
    """Its fd.

    Raises:
        OSError: the kernel refuses it.
    """
    if spec.type is not MapType.SK_STORAGE:
        return bpf.map_create(
            spec.name, spec.type, spec.key_size, spec.value_size, spec.max_entries, spec.flags
        )
    btf_fd = bpf.btf_load(_storage_btf(spec.value_size))
    try:
        return bpf.map_create(
            spec.name, spec.type, spec.key_size, spec.value_size, 0, spec.flags, btf=(btf_fd, 1, 3)
        )
    finally:
        os.close(btf_fd)


def _storage_btf(value_size: int) -> bytes:
    """Types that socket storage demands: 1 `int`, 2 `u64`, 3 an array of u64 (Documentation/bpf/btf.rst)."""
    kind_int, kind_array = 1, 3
    types = (
        struct.pack("=IIII", 1, kind_int << 24, 4, 1 << 24 | 32)
        + struct.pack("=IIII", 5, kind_int << 24, 8, 64)
        + struct.pack("=IIIIII", 0, kind_array << 24, 0, 2, 1, value_size // 8)
    )
    strings = b"\0int\0u64\0"
    header = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    return header + types + strings
