"""C structs as bytes: explicit offsets, no implicit padding."""

from __future__ import annotations

import struct
import sys
from typing import NamedTuple


class Field(NamedTuple):
    """One member of a C struct.

    `code` is a `struct` code; `order` is `=` (host) or `>` (network). An array of structs has their name in
    `of`.
    """

    name: str
    code: str
    order: str = "="
    of: str = ""


class CStruct:
    """A C struct: encode and decode with explicit offsets, no implicit padding.

    Fields keep their own byte order, which one `struct` format cannot mix; all integers are packed
    in host order and network-order fields are swapped at the edge.
    """

    def __init__(self, c_name: str, *fields: Field) -> None:
        self.c_name = c_name
        self.fields = fields
        self.packer = struct.Struct("=" + "".join(f.code for f in fields))
        self.size = self.packer.size
        self.offsets: dict[str, int] = {}
        offset = 0
        for field in fields:
            self.offsets[field.name] = offset
            offset += struct.calcsize("=" + field.code)
        self._names = tuple(f.name for f in fields)
        self._swapped = tuple(i for i, f in enumerate(fields) if f.order == ">")

    def pack(self, *values: int | bytes) -> bytes:
        """Bytes of the struct; 16-bit network-order fields are given in host order."""
        if self._swapped:
            swapped = list(values)
            for i in self._swapped:
                swapped[i] = swap16(swapped[i])
            return self.packer.pack(*swapped)
        return self.packer.pack(*values)

    def unpack(self, data: bytes | memoryview, offset: int = 0) -> tuple[int | bytes, ...]:
        """Values in field order, network-order fields in host order."""
        values = list(self.packer.unpack_from(data, offset))
        for i in self._swapped:
            values[i] = swap16(values[i])
        return tuple(values)

    def width(self, field: Field) -> int:
        """Bytes of one member."""
        return struct.calcsize("=" + field.code)

    def as_dict(self, data: bytes | memoryview, offset: int = 0) -> dict[str, int | bytes]:
        return dict(zip(self._names, self.unpack(data, offset), strict=True))


def swap16(value: int | bytes) -> int:
    """A 16-bit number from host to network order, or back."""
    return int.from_bytes(int(value).to_bytes(2, "big"), sys.byteorder)
