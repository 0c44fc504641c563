"""Maps of another layout, which the hooks use until ours take their place."""

from __future__ import annotations

import logging
import os
from array import array
from collections.abc import Iterator
from pathlib import Path

from pyagent.datapath.carried import Convert, conversions, same
from pyagent.datapath.description import Description, read_description
from pyagent.datapath.earlier_text import datagram_origins, earlier_text
from pyagent.datapath.layout import MapFlag, MapSpec
from pyagent.datapath.writes import Put
from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel.map_pins import target
from pyagent.kernel.map_set import MapSet, capacities_of
from pyagent.model.failures import KernelRefused, LayoutMismatch, PinsMissing

log = logging.getLogger(__name__)

EARLIER = "earlier"
"""Link to the maps that hooks come from, beside `current`, while they are on the way."""

CHUNK = 4096
SOCKET_MAPS = ("origin", "origin_udp")
LATE = ("affinity", "origin_overflow", "flows", "fragments")
COUNTERS = ("chosen", "refused", "outcomes", "outside_outcomes")


class Earlier:
    """Opened by their own description; only hooks write them."""

    def __init__(self, folder: Path, description: Description) -> None:
        """
        Raises:
            PinsMissing, LayoutMismatch, NoPermission: they are not what they say of themselves.
        """
        self.maps = MapSet.open_described(folder, description)
        self._description = description
        self._conversions = conversions(description)
        self._counted: dict[str, array[int]] = {}
        self._ours: MapSet | None = None

    @classmethod
    def open(cls, folder: Path) -> Earlier:
        """
        Raises:
            PinsMissing, LayoutMismatch, NoPermission: nothing can be made of them.
        """
        return cls(folder, described(folder))

    @property
    def readable(self) -> bool:
        """What they hold can be carried over: ids and all that hangs on them stay."""
        return self._conversions is not None

    @property
    def definitions(self) -> dict[str, str] | None:
        """For C that reads their records of sockets; None: that cannot be."""
        text = earlier_text(self._description)
        if text is None:
            return None
        places = str(datagram_origins(self._description))
        return {"CROSSING": "1", "EARLIER_TYPES": text, "EARLIER_DATAGRAM_ORIGINS": places}

    def continued(self, bpffs: Path, folder: Path) -> MapSet:
        """New maps of our layout with the same contents, pinned in `folder`.

        Where hooks are still on the way to these from maps of our layout, those hold records of sockets and
        clients: they go on.

        Raises:
            KernelRefused, NoPermission: the maps cannot be made.
        """
        self._ours = _ours(bpffs)
        made = MapSet.create(folder, capacities_of(self.maps), like=self._ours, shared=SOCKET_MAPS)
        self.copy_contents(made)
        return made

    def copy_contents(self, new: MapSet) -> None:
        """Everything that an agent wrote, and what the hooks did, into new maps that nobody uses yet."""
        for name, (key, value) in (self._conversions or {}).items():
            spec = self.maps.specs[name]
            if name in COUNTERS:
                self._counted[name] = array("Q")
            elif spec.flags & MapFlag.MMAPABLE:
                _copy_array(self.maps, new, spec, value)
            else:
                new.apply(Put(name, key(k), value(v)) for k, v in self.maps.items(name))
        self._add_counts(new)

    def copy_late(self, new: MapSet) -> None:
        """What hooks wrote since then: affinity, overflown origins, counts. What `new` has by now stays."""
        for name in LATE:
            key, value = (self._conversions or {}).get(name, (None, None))
            if key and value:
                for k, v in self.maps.items(name):
                    new.put_missing(name, key(k), value(v))
            for k, v in self._ours.items(name) if self._ours else ():
                new.put_missing(name, k, v)
        self._add_counts(new)

    def _add_counts(self, new: MapSet) -> None:
        """Counts gained since the last time. A few that hooks add to `new` meanwhile may be lost."""
        for name, before in self._counted.items():
            now = array("Q", self.maps.counts(name))
            new.add_counts(name, _gained(before, now))
            self._counted[name] = now

    def close(self) -> None:
        self.maps.close()
        if self._ours:
            self._ours.close()


def _gained(before: array[int], now: array[int]) -> Iterator[tuple[int, int]]:
    """(place, how much more)."""
    if before == now:
        return
    for at in range(0, len(now), CHUNK):
        old, new = before[at : at + CHUNK] or array("Q", bytes(8 * CHUNK)), now[at : at + CHUNK]
        if old != new:
            yield from ((at + n, b - a) for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b)


def _copy_array(old: MapSet, new: MapSet, spec: MapSpec, value: Convert) -> None:
    size, larger = spec.value_size, new.specs[spec.name].value_size
    count = min(spec.max_entries, new.specs[spec.name].max_entries)
    nothing = bytes(size)
    with old.borrowed(spec.name) as source, new.borrowed(spec.name) as place:
        if value is same:
            place[: count * size] = source[: count * size]
            return
        for at in range(count):
            found = source[at * size : at * size + size]
            if found != nothing:
                place[at * larger : at * larger + larger] = value(found)


def described(folder: Path) -> Description:
    """What the maps pinned in a folder say of themselves.

    Raises:
        PinsMissing: they say nothing. LayoutMismatch: it is not to be understood.
    """
    try:
        fd = bpf.obj_get(str(folder / "layout"))
    except OSError as error:
        raise PinsMissing(f"{folder}: its maps do not describe themselves: {error.strerror}") from error
    try:
        text = bpf.map_lookup(fd, bytes(4), bpf.map_info(fd).value_size)
    except OSError as error:
        raise LayoutMismatch(f"{folder}/layout: {error.strerror}") from error
    finally:
        os.close(fd)
    return read_description(text or b"")


def _ours(bpffs: Path) -> MapSet | None:
    name = target(bpffs, EARLIER)
    try:
        return MapSet.open(bpffs / name, writable=True) if name else None
    except (PinsMissing, LayoutMismatch, KernelRefused):
        return None


def earlier_maps(bpffs: Path, link: str) -> Earlier | None:
    """The maps of another layout that a link below `--bpffs` leads to; None: nothing can be made of them."""
    path = bpffs / link
    if not path.is_symlink():
        return None
    try:
        return Earlier.open(bpffs / path.readlink())
    except (PinsMissing, LayoutMismatch, KernelRefused) as error:
        log.warning("what is pinned is left behind, open sockets will show their backend: %s", error)
        return None
