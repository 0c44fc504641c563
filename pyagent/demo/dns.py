"""A DNS server of a few names (RFC 1035), so that cluster DNS is dialled with real queries over UDP and TCP.

Every answer carries a TXT record `served-by.` naming the pod: a DNS answer has no other place for it.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pyagent.demo.echo import Peer

TYPE_A, TYPE_TXT, TYPE_AAAA = 1, 16, 28
CLASS_IN = 1
HEADER = struct.Struct("!6H")  # id, flags, questions, answers, authorities, additionals
QUESTION = struct.Struct("!HH")  # type, class
RECORD = struct.Struct("!HHIH")  # type, class, time to live, length
RESPONSE, AUTHORITATIVE, RECURSION_DESIRED, NO_SUCH_NAME, FORMAT_ERROR = 0x8000, 0x0400, 0x0100, 3, 1
SERVED_BY = "served-by"


class DnsAnswer(NamedTuple):
    """A decoded response."""

    id: int
    addresses: tuple[str, ...]
    served_by: str
    code: int  # 0: no error, 3: no such name


class DnsApp:
    """Answers A and AAAA queries from a table of names without trailing dot → addresses."""

    def __init__(self, names: Mapping[str, Sequence[str]]) -> None:
        self.names = names

    def answer(self, data: bytes, peer: Peer) -> bytes:
        try:
            query_id, flags, _, _, _, _ = HEADER.unpack_from(data)
            name, after = _read_name(data, HEADER.size)
            wanted, _ = QUESTION.unpack_from(data, after)
        except (struct.error, IndexError, UnicodeDecodeError):
            return HEADER.pack(int.from_bytes(data[:2]), RESPONSE | FORMAT_ERROR, 0, 0, 0, 0)
        known = self.names.get(name.lower())
        parsed = [ipaddress.ip_address(text) for text in known or ()]
        version = {TYPE_A: 4, TYPE_AAAA: 6}.get(wanted)
        records = [
            _record(name, TYPE_A if address.version == 4 else TYPE_AAAA, address.packed)
            for address in parsed
            if address.version == version
        ]
        code = NO_SUCH_NAME if known is None else 0
        head = HEADER.pack(
            query_id,
            RESPONSE | AUTHORITATIVE | flags & RECURSION_DESIRED | code,
            1,
            len(records),
            0,
            1,
        )
        question = data[HEADER.size : after + QUESTION.size]
        pod = peer.pod.encode()
        return head + question + b"".join(records) + _record(SERVED_BY, TYPE_TXT, bytes([len(pod)]) + pod)

    def stream(self, buffered: bytes, peer: Peer) -> tuple[bytes, bytes, bool]:
        answers = b""
        while len(buffered) >= 2 and len(buffered) >= 2 + int.from_bytes(buffered[:2]):
            length = int.from_bytes(buffered[:2])
            answers += framed(self.answer(buffered[2 : 2 + length], peer))
            buffered = buffered[2 + length :]
        return answers, buffered, False


def framed(message: bytes) -> bytes:
    """A message as TCP carries it: behind two bytes of length."""
    return len(message).to_bytes(2) + message


def query(query_id: int, name: str, wanted: int = TYPE_A) -> bytes:
    """A query for one name."""
    head = HEADER.pack(query_id, RECURSION_DESIRED, 1, 0, 0, 0)
    return head + _written_name(name) + QUESTION.pack(wanted, CLASS_IN)


def decode(message: bytes) -> DnsAnswer:
    """Read a response.

    Raises:
        ValueError: the message is no DNS response.
    """
    try:
        message_id, flags, questions, answers, authorities, additionals = HEADER.unpack_from(message)
        at = HEADER.size
        for _ in range(questions):
            _, at = _read_name(message, at)
            at += QUESTION.size
        addresses, served_by = [], ""
        for _ in range(answers + authorities + additionals):
            name, at = _read_name(message, at)
            kind, _, _, length = RECORD.unpack_from(message, at)
            value = message[at + RECORD.size : at + RECORD.size + length]
            at += RECORD.size + length
            if kind in (TYPE_A, TYPE_AAAA):
                addresses.append(str(ipaddress.ip_address(value)))
            elif kind == TYPE_TXT and name == SERVED_BY:
                served_by = value[1:].decode()
    except (struct.error, IndexError) as error:
        raise ValueError(f"not a DNS message: {error}") from error
    return DnsAnswer(message_id, tuple(addresses), served_by, flags & 0xF)


def _written_name(name: str) -> bytes:
    labels = [label.encode() for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def _read_name(message: bytes, at: int) -> tuple[str, int]:
    """A name without compression, as both ends here write it, and where it ends."""
    labels = []
    while message[at]:
        length = message[at]
        labels.append(message[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return ".".join(labels), at + 1


def _record(name: str, kind: int, value: bytes) -> bytes:
    return _written_name(name) + RECORD.pack(kind, CLASS_IN, 5, len(value)) + value
