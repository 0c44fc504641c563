"""From a dump of the pinned maps back to the state that they are in.

Believes nothing: what does not fit together is not held. It is found again by the next full plan, which
writes it anew, or removes it. Until then its places count as used, for programs still follow what dangles.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable, Iterator

from pyagent.datapath.blocks import BlockAllocator, block_words
from pyagent.datapath.decoded import (
    Buffer,
    DecodedName,
    DecodedSet,
    RawMaps,
    decode_name,
    decode_set,
)
from pyagent.datapath.encoded import NAME_HEADER, PROBE_FRONTENDS, is_node_port, node_port_node, port_of
from pyagent.datapath.held import BAD_TAG, IDENTITY_BYTES, Freed, HeldServicePort, HeldState, reach
from pyagent.datapath.identifiers import Identifiers
from pyagent.datapath.layout import (
    BACKEND,
    BLOCK_HEADER_WORDS,
    CONFIG,
    FRONTEND_KEY,
    NAME_KEY,
    SERVICE_ADDRESS_KEY,
    WORD,
    Capacities,
    NameKind,
    NodeId,
    frontend_tag,
    split_set_word,
)
from pyagent.datapath.served_prefixes import prefixes_of_frontend, prefixes_of_rule
from pyagent.model.service import ANY_OTHER_NODE, SetKey, View


def restore(raw: RawMaps, capacities: Capacities) -> HeldState:
    """The state of maps that an earlier agent, or a plan that failed midway, left behind.

    Between the last write and this call one grace period must have passed: what the maps do not refer to
    counts as free. The next plan must be a full one (`complete=True`). Garbage in the maps never raises.

    Args:
        raw: dump of all maps; the arrays may be longer or shorter than the capacities say.
        capacities: sizes of the maps.
    """
    held = HeldState(capacities)
    _take_arrays(held, raw)
    names = _take_names(held, raw)
    _take_addresses(held, raw)
    for key, value in raw.frontends.items():
        if len(key) == FRONTEND_KEY.size and len(value) == WORD.size:
            word: int = WORD.unpack(value)[0]
            held.frontends[key] = word >> 32 if word & 0xFFFFFFFF == frontend_tag(key) else BAD_TAG
            held.prefixes.add(prefixes_of_frontend(key))
            if is_node_port(key):
                held.node_ports[port_of(key)] = held.node_ports.get(port_of(key), 0) + 1
    _Claims(held, names).settle()
    return held


class _Claims:
    """Decides which sets are held: those that frontends refer to, then what contradicts none of them."""

    def __init__(self, held: HeldState, names: dict[int, DecodedName]) -> None:
        self.held = held
        self.names = names
        self.node_names = {i: name for name, i in held.nodes.items()}
        self.node_names[NodeId.ANY_OTHER] = ANY_OTHER_NODE
        words = memoryview(held.backends).cast("I")
        stride = BACKEND.size // 4
        self.incarnations = words[BACKEND.offsets["incarnation"] // 4 :: stride]
        self.owners = words[BACKEND.offsets["service_port"] // 4 :: stride]
        self.taken = bytearray(held.capacities.slots)  # one byte a slot
        probe_block = min(block_words(0), len(self.taken))
        self.taken[:probe_block] = b"\1" * probe_block
        self.living: set[int] = set()
        self.claimed: set[int] = set()
        self.sets = memoryview(held.sets).cast("B")
        self.slots = memoryview(held.slots).cast("B")
        self.set_keys: set[tuple[int, SetKey]] = set()
        self.identities: dict[int, dict[bytes, int]] = {}  # of service ports with several sets

    def settle(self) -> None:
        held = self.held
        dialled: dict[int, list[bytes]] = {}
        for key, set_id in held.frontends.items():
            if 0 < set_id < held.capacities.sets:
                dialled.setdefault(set_id, []).append(key)
        for set_id in sorted(dialled):
            self._claim(set_id)
        for set_id, word in enumerate(held.sets):
            if word & 0xFFFF and set_id and set_id not in dialled:
                self._claim(set_id)
        for port in held.service_ports.values():
            keys = (key for set_id in port.set_ids for key in dialled.get(set_id, ()))
            port.frontends = tuple(key for key in keys if key not in PROBE_FRONTENDS)
        held.abandoned_sets = [
            i for i, word in enumerate(held.sets) if word & 0xFFFF and i not in self.claimed
        ]
        self._set_strays_aside(set_id for set_id in dialled if set_id not in self.claimed)

    def _claim(self, set_id: int) -> None:
        """Take a set as held if all about it is consistent."""
        held = self.held
        decoded = decode_set(self.sets, self.slots, set_id)
        if decoded is None or not decoded.generation:
            return
        key = self._set_key(decoded)
        name = self.names.get(decoded.service_port)
        first, size = decoded.first_slot, block_words(len(decoded.backend_words))
        end = first + size
        if (
            key is None
            or name is None
            or name.service_port is None
            or name.incarnation != decoded.incarnation
            or first % size
            or end > len(self.taken)
            or self.taken.find(1, first, end) >= 0
        ):
            return
        port = held.service_ports.get(name.service_port)
        if port is None:
            port = HeldServicePort(name.service_port, decoded.service_port, decoded.incarnation)
        elif port.identifier != decoded.service_port or (port.identifier, key) in self.set_keys:
            return
        if not self._backends_fit(port, decoded):
            return
        self.taken[first:end] = b"\1" * size
        self.claimed.add(set_id)
        self.living.update(word >> 32 for word in decoded.backend_words)
        self.set_keys.add((port.identifier, key))
        port.set_keys += (key,)
        port.set_ids += (set_id,)
        held.service_ports[port.key] = port
        held.service_port_keys[port.identifier] = port.key

    def _set_key(self, decoded: DecodedSet) -> SetKey | None:
        view, node_id = View(decoded.header.view), decoded.header.node_id
        if view is View.NODE and node_id:
            node = self.node_names.get(node_id)
            return None if node is None else SetKey(view, node)
        return SetKey(view) if not node_id else None

    def _backends_fit(self, port: HeldServicePort, decoded: DecodedSet) -> bool:
        """Each slot's backend is this service port's, alive, and nobody's twin."""
        incarnations, owners, owner = self.incarnations, self.owners, port.identifier
        opened, backends, size = len(incarnations), self.held.backends, BACKEND.size
        if port.set_ids and owner not in self.identities:
            self.identities[owner] = self.held.identities(port)
        known = self.identities.get(owner, {})
        own: dict[bytes, int] = {}
        for word in decoded.backend_words:
            i = word >> 32
            incarnation = word & 0xFFFFFFFF
            if not (0 < i < opened and incarnation and incarnations[i] == incarnation and owners[i] == owner):
                return False
            identity = bytes(backends[i * size : i * size + IDENTITY_BYTES])
            if identity in own or known.get(identity, word) != word:
                return False
            own[identity] = word
        if port.set_ids:
            known.update(own)
        return True

    def _set_strays_aside(self, dangling: Iterable[int]) -> None:
        held, taken, capacity = self.held, self.taken, self.held.capacities
        lost = bytearray(len(taken))
        sets = tuple(dangling)
        self.sets.release()
        reach(held.sets, max(sets, default=0) + 1)
        for set_id in sets:
            first, count, _ = split_set_word(held.sets[set_id])
            end = min(first + BLOCK_HEADER_WORDS + count, len(lost))
            if first < end:
                lost[first:end] = b"\1" * (end - first)
        blocks: list[tuple[int, int]] = []
        backends: set[int] = set()
        for first, words in _runs(lost):
            backends.update(word >> 32 for word in held.slots[first : first + words])
            free = bytes(1 - used for used in taken[first : first + words])
            blocks.extend((first + start, length) for start, length in _runs(free))
            taken[first : first + words] = b"\1" * words
        stray_backends = {i for i in backends - self.living if 0 < i < capacity.backends}
        stray_nodes = self._stray_nodes()
        self._open_allocators(set(sets), stray_backends, stray_nodes)
        held.strays = Freed(
            held, sets=sets, backends=tuple(stray_backends), nodes=tuple(stray_nodes), blocks=tuple(blocks)
        )

    def _stray_nodes(self) -> set[int]:
        """Node ids that keys and values mention though no name belongs to them."""
        held = self.held
        mentioned = set(held.node_addresses.values())
        mentioned.update(node_port_node(key) for key in held.frontends if is_node_port(key))
        strays = mentioned - self.node_names.keys()
        return {i for i in strays if 0 < i < held.capacities.service_ports}

    def _open_allocators(self, stray_sets: set[int], stray_backends: set[int], stray_nodes: set[int]) -> None:
        held, c = self.held, self.held.capacities
        held.blocks = BlockAllocator(c.slots, _runs(self.taken))
        held.set_ids = Identifiers(c.sets, self.claimed | stray_sets, len(held.sets))
        held.backend_ids = Identifiers(
            c.backends, self.living | stray_backends, len(held.backends) // BACKEND.size
        )
        opened = max(self.names, default=0) + 1
        held.service_port_ids = Identifiers(c.service_ports, held.service_port_keys.keys(), opened)
        held.node_ids = Identifiers(c.service_ports, stray_nodes.union(held.nodes.values()))
        # A dead backend's incarnation is kept in its place, and it was at least its owner's: so no service
        # port that ever had backends is taken for a later one.
        held.incarnation = max(
            max(self.incarnations, default=0),
            max((name.incarnation for name in self.names.values()), default=0),
        )


def _runs(marks: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """(first, length) of each row of ones."""
    start = marks.find(1)
    while start >= 0:
        end = marks.find(0, start)
        if end < 0:
            end = len(marks)
        yield start, end - start
        start = marks.find(1, end)


def _take_arrays(held: HeldState, raw: RawMaps) -> None:
    c = held.capacities
    held.sets = _words(raw.sets, c.sets)
    held.slots = _words(raw.slots, c.slots)
    # the last block may end in zeros
    reach(held.slots, min(len(held.slots) + BLOCK_HEADER_WORDS, c.slots))
    backends = bytes(memoryview(raw.backends).cast("B")[: c.backends * BACKEND.size]).rstrip(b"\0")
    used = -(-len(backends) // BACKEND.size) * BACKEND.size
    held.backends = bytearray(backends.ljust(used, b"\0"))
    held.config = bytearray(bytes(raw.config[: CONFIG.size]).ljust(CONFIG.size, b"\0"))


def _words(raw: Buffer, capacity: int) -> array[int]:
    data = bytes(memoryview(raw).cast("B")[: capacity * 8]).rstrip(b"\0")
    words = array("Q")
    words.frombytes(data.ljust(-(-len(data) // 8) * 8, b"\0"))
    return words


def _take_names(held: HeldState, raw: RawMaps) -> dict[int, DecodedName]:
    """Names of service ports by id; names of nodes go into the state at once."""
    ports: dict[int, DecodedName] = {}
    for key, value in raw.names.items():
        if len(key) != NAME_KEY.size:
            continue
        head = bytes(value[: NAME_HEADER.size])
        held.names[key] = head + bytes(value[NAME_HEADER.size :]).rstrip(b"\0")
        name = decode_name(key, held.names[key])
        if name is None or not 0 < name.identifier < held.capacities.service_ports or not name.incarnation:
            continue
        if name.kind is NameKind.NODE:
            held.nodes.setdefault(name.node, name.identifier)
        else:
            ports[name.identifier] = name
    return ports


def _take_addresses(held: HeldState, raw: RawMaps) -> None:
    for key, value in raw.service_addresses.items():
        # a trie holds no longer prefixes
        if len(key) == SERVICE_ADDRESS_KEY.size and _native(key[:4]) <= 128:
            held.service_addresses[key] = _native(value)
            held.prefixes.add(prefixes_of_rule(key))
    for key, value in raw.node_addresses.items():
        if len(key) == 16:
            held.node_addresses[key] = _native(value)


def _native(data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder)


assert struct.calcsize("=I") == array("I").itemsize  # noqa: S101  the casts above rely on it
