"""Packets made and looked at byte by byte. Offsets and sums as in RFC 791, 8200, 793, 768, 792 and 4443."""

from __future__ import annotations

import contextlib
import ipaddress
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

ETH_P_ALL = 3
PACKET_OUTGOING = 4
TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
SYN, RST, ACK, FIN = 2, 4, 16, 1
NOP, MSS = b"\1", b"\2\4\5\xb4"


def checksum(data: bytes) -> int:
    """RFC 1071; 0 over data that holds its own right checksum."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def _pseudo(source: str, destination: str, protocol: int, length: int) -> bytes:
    packed = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    if ":" in source:
        return packed + struct.pack("!I3xB", length, protocol)
    return packed + struct.pack("!BBH", 0, protocol, length)


def ip(
    source: str, destination: str, protocol: int, body: bytes, *, options: bytes = b"", **fields: int
) -> bytes:
    """An IP packet. `fields`: ident, fragment (flags and offset), ttl, length, version_length."""
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    ttl = fields.get("ttl", 64)
    if ":" in source:
        length = fields.get("length", len(options) + len(body))
        return struct.pack("!IHBB", 6 << 28, length, protocol, ttl) + addresses + options + body
    words = 5 + len(options) // 4
    head = struct.pack(
        "!BBHHHBBH",
        fields.get("version_length", 0x40 | words),
        0,
        fields.get("length", words * 4 + len(body)),
        fields.get("ident", 1),
        fields.get("fragment", 0),
        ttl,
        protocol,
        0,
    )
    head += addresses + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def tcp(
    source: str,
    destination: str,
    ports: tuple[int, int],
    flags: int,
    *,
    options: bytes = b"",
    data: bytes = b"",
) -> bytes:
    """A TCP segment with sequence number 1000 and acknowledgement 2000."""
    words = 5 + len(options) // 4
    head = struct.pack("!HHIIBBHHH", *ports, 1000, 2000, words << 4, flags, 1024, 0, 0) + options
    body = head + data
    sum_ = checksum(_pseudo(source, destination, TCP, len(body)) + body)
    return body[:16] + struct.pack("!H", sum_) + body[18:]


def udp(
    source: str, destination: str, ports: tuple[int, int], data: bytes, *, unsummed: bool = False
) -> bytes:
    body = struct.pack("!HHHH", *ports, 8 + len(data), 0) + data
    if unsummed:
        return body
    sum_ = checksum(_pseudo(source, destination, UDP, len(body)) + body) or 0xFFFF
    return body[:6] + struct.pack("!H", sum_) + body[8:]


class Seen(NamedTuple):
    """A captured packet, without the padding of its frame."""

    source: str
    destination: str
    protocol: int
    head: bytes  # the IP header with its options or extension headers
    body: bytes

    @property
    def ports(self) -> tuple[int, int]:
        source, destination = struct.unpack_from("!HH", self.body)
        return source, destination

    @property
    def is_sound(self) -> bool:
        """All checksums are right; a UDP packet over IPv4 may have none."""
        if self.head[0] >> 4 == 4 and checksum(self.head):
            return False
        if self.protocol == ICMP:
            return not checksum(self.body)
        if self.protocol == UDP and self.body[6:8] == b"\0\0":
            return self.head[0] >> 4 == 4
        return not checksum(_pseudo(self.source, self.destination, self.protocol, len(self.body)) + self.body)


def parse(packet: bytes) -> Seen | None:
    """An IP packet; None if it is none."""
    if packet[0] >> 4 == 4:
        size = (packet[0] & 15) * 4
        addresses = packet[12:16], packet[16:20]
        protocol, end = packet[9], struct.unpack_from("!H", packet, 2)[0]
    elif packet[0] >> 4 == 6:
        size, addresses = 40, (packet[8:24], packet[24:40])
        protocol, end = packet[6], 40 + struct.unpack_from("!H", packet, 4)[0]
        while protocol in (0, 60):
            protocol, size = packet[size], size + 8 + packet[size + 1] * 8
    else:
        return None
    source, destination = (str(ipaddress.ip_address(one)) for one in addresses)
    return Seen(source, destination, protocol, packet[:size], packet[size:end])


def address_of_link(name: str = "eth0") -> bytes:
    """The hardware address of a device here."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((name, 0))
        return sock.getsockname()[4]  # type: ignore[no-any-return]


def inject(device: str, to: bytes, packets: Sequence[bytes], tag: int | None = None) -> None:
    """Send IP packets as they are, in frames to a hardware address. `tag`: as in IEEE 802.1Q."""
    tagged = b"" if tag is None else struct.pack("!HH", 0x8100, tag)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((device, 0))
        own = sock.getsockname()[4]
        for packet in packets:
            kind = 0x86DD if packet and packet[0] >> 4 == 6 else 0x0800
            with contextlib.suppress(OSError):
                sock.send((to + own + tagged + struct.pack("!H", kind) + packet).ljust(60, b"\0"))


def exchange(
    device: str,
    to: bytes,
    packets: Sequence[bytes],
    wanted: Callable[[Seen], bool],
    seconds: float,
    count: int = 1,
) -> list[Seen]:
    """Inject, and give back what comes in that is wanted: `count` packets, or fewer when the time is over."""
    found: list[Seen] = []
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as sock:
        sock.bind((device, ETH_P_ALL))
        inject(device, to, packets)
        deadline = time.monotonic() + seconds
        while len(found) < count and (left := deadline - time.monotonic()) > 0:
            if select.select([sock], [], [], left)[0]:
                found += _received(sock, wanted)
    return found


def _received(sock: socket.socket, wanted: Callable[[Seen], bool]) -> list[Seen]:
    frame, about = sock.recvfrom(1 << 16)
    if about[2] == PACKET_OUTGOING:
        return []
    seen = parse(frame[14:])
    return [seen] if seen is not None and wanted(seen) else []
