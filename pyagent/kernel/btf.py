"""Offsets of struct members in the running kernel, from /sys/kernel/btf/vmlinux (Documentation/bpf/btf.rst).

Header files of another kernel give wrong offsets without a word; this is the kernel's own account.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pyagent.model.failures import KernelRefused

ITERATOR = "bpf_iter_bpf_sk_storage_map"
VMLINUX = Path("/sys/kernel/btf/vmlinux")
_STRUCT, _UNION, _FUNC = 4, 5, 12
_EXTRA = {1: 4, 3: 12, 14: 4, 17: 4}  # INT, ARRAY, VAR, DECL_TAG
_PER_MEMBER = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}  # STRUCT, UNION, ENUM, FUNC_PROTO, DATASEC, ENUM64


class Btf:
    """Structs by name, of one BTF blob."""

    def __init__(self, data: bytes, wanted: Iterable[str]) -> None:
        """
        Args:
            data: the blob.
            wanted: names of the structs and functions that will be asked for.
        """
        _magic, _version, _flags, header, types, types_length, strings, _length = struct.unpack_from(
            "=HBBIIIII", data
        )
        self._strings = data[header + strings :]
        self._types = data[header + types : header + types + types_length]
        self._offset_of: list[int] = [0]
        self._named: dict[str, int] = {}
        self._id: dict[str, int] = {}
        self._index({name.encode() for name in wanted})

    def _index(self, wanted: set[bytes]) -> None:
        names = {self._strings.find(b"\0" + name + b"\0") + 1: name.decode() for name in wanted}
        at, types, end = 0, self._types, len(self._types)
        unpack = struct.Struct("=II").unpack_from
        while at < end:
            name, info = unpack(types, at)
            kind, members = info >> 24 & 0x1F, info & 0xFFFF
            if name in names and kind in (_STRUCT, _FUNC):
                self._named.setdefault(names[name], at)
                self._id.setdefault(names[name], len(self._offset_of))
            self._offset_of.append(at)
            at += 12 + _EXTRA.get(kind, 0) + _PER_MEMBER.get(kind, 0) * members

    def type_id(self, name: str) -> int:
        """The id of a struct or function.

        Raises:
            KernelRefused: this kernel has none of that name.
        """
        if name not in self._id:
            raise KernelRefused(f"BTF of this kernel has no {name}")
        return self._id[name]

    def offset(self, struct_name: str, path: str) -> int:
        """Bytes from the start of a struct to a member; anonymous structs and unions are looked through.

        Args:
            path: member names with dots between them.

        Raises:
            KernelRefused: this kernel has no such member.
        """
        if struct_name not in self._named:
            raise KernelRefused(f"BTF of this kernel has no struct {struct_name}")
        at, total = self._named[struct_name], 0
        for member in path.split("."):
            found = self._member(at, member)
            if found is None:
                raise KernelRefused(f"BTF of this kernel has no {struct_name}.{path}")
            offset, type_id = found
            total += offset
            at = self._struct_at(type_id)
        return total

    def _member(self, at: int, wanted: str) -> tuple[int, int] | None:
        _name, info, _size = struct.unpack_from("=III", self._types, at)
        packed_bits = bool(info >> 31)
        for i in range(info & 0xFFFF):
            name, type_id, bits = struct.unpack_from("=III", self._types, at + 12 + 12 * i)
            offset = (bits & 0xFFFFFF if packed_bits else bits) // 8
            if self._text(name) == wanted:
                return offset, type_id
            if not name:
                inner = self._struct_at(type_id)
                nested = self._member(inner, wanted) if inner >= 0 else None
                if nested is not None:
                    return offset + nested[0], nested[1]
        return None

    def _struct_at(self, type_id: int) -> int:
        """Where the struct or union behind typedefs and qualifiers lies; -1 if it is something else."""
        for _hop in range(16):
            at = self._offset_of[type_id]
            info, size_or_type = struct.unpack_from("=II", self._types, at + 4)
            kind = info >> 24 & 0x1F
            if kind in (_STRUCT, _UNION):
                return at
            if kind not in (8, 9, 10, 11, 18):  # TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG
                return -1
            type_id = size_or_type
        return -1

    def _text(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode(errors="replace")


class SocketFacts(NamedTuple):
    """What `bpf/connections.c` needs of this kernel.

    Attributes:
        definitions: offsets of fields, as C definitions.
        iterator: BTF id of the function that the iterator stands for.
    """

    definitions: dict[str, str]
    iterator: int


def socket_facts() -> SocketFacts:
    """Of the running kernel.

    Raises:
        KernelRefused: the kernel was built without BTF (CONFIG_DEBUG_INFO_BTF) or lacks the iterator.
    """
    try:
        data = VMLINUX.read_bytes()
    except OSError as error:
        raise KernelRefused(
            f"{VMLINUX}: {error.strerror}; the connection table needs CONFIG_DEBUG_INFO_BTF=y"
        ) from error
    btf = Btf(data, ("sock", "net", ITERATOR))
    sock = {
        "SOCK_FAMILY": "skc_family",
        "SOCK_STATE": "skc_state",
        "SOCK_SOURCE_PORT": "skc_num",
        "SOCK_PEER_PORT": "skc_dport",
        "SOCK_SOURCE_IPV4": "skc_rcv_saddr",
        "SOCK_PEER_IPV4": "skc_daddr",
        "SOCK_SOURCE_IPV6": "skc_v6_rcv_saddr",
        "SOCK_PEER_IPV6": "skc_v6_daddr",
        "SOCK_NET": "skc_net",
    }
    offsets = {name: str(btf.offset("sock", f"__sk_common.{path}")) for name, path in sock.items()}
    offsets["NET_INODE"] = str(btf.offset("net", "ns.inum"))
    return SocketFacts(offsets, btf.type_id(ITERATOR))
