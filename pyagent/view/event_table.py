"""`kubesock events`: a row for each thing that happened."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from pyagent.datapath.event_filter import mask_of
from pyagent.datapath.flow_layout import OUTSIDE_HOOK
from pyagent.datapath.layout import Hook
from pyagent.kernel.event_ring import Event, decode_event
from pyagent.kernel.namespace_owners import NetnsOwner
from pyagent.model.address import Family, family_of, format_endpoint
from pyagent.model.failures import UsageError
from pyagent.model.outcome import ERRNO_OF, Outcome
from pyagent.view.event_stream import Beat, Change, Dial, Noted, SocketEnded, Told
from pyagent.view.names import PROTOCOLS, PortName
from pyagent.view.tables import Column, Row, Table

CHANGE, SOCKET_ENDED, NOTICE, LOST = "change", "socket_ended", "notice", "lost"
SWITCHED = "switched"

_REPORTED = tuple(
    outcome
    for outcome in Outcome
    if outcome.label.startswith(("translated", "refused", "passed")) or outcome is Outcome.PROBED
)
"""Outcomes of the hooks that dial; the others have no event of their own."""

_GROUPS: dict[str, tuple[Outcome, ...]] = {
    "translated": (Outcome.TRANSLATED, Outcome.TRANSLATED_BY_AFFINITY),
    SWITCHED: (Outcome.TRANSLATED,),
    "refused": tuple(one for one in _REPORTED if one.label.startswith("refused")),
    "passed": tuple(one for one in _REPORTED if one.label.startswith("passed")),
    **{one.label: (one,) for one in _REPORTED if one is not Outcome.TRANSLATED},
}
AGENT_EVENTS = (CHANGE, SOCKET_ENDED, NOTICE)
EVENT_NAMES = (*_GROUPS, *AGENT_EVENTS, "all")
"""What `--event` takes."""

OUTSIDE = "outside"
"""Hook and network namespace of packets."""

_WHY = {
    Outcome.TRANSLATED_BY_AFFINITY: "stays by session affinity",
    Outcome.TRANSLATED_SAME_SOCKET: "a further datagram of the socket",
    Outcome.REFUSED_NO_ENDPOINTS: "no endpoint is ready",
    Outcome.REFUSED_NO_LOCAL_ENDPOINTS: "the policy is Local, and no endpoint is on the node",
    Outcome.REFUSED_UNDEFINED_PORT: "no Service has this port",
    Outcome.REFUSED_UNALLOCATED_ADDRESS: "no Service has this address",
    Outcome.REFUSED_SOURCE_RANGE: "the client is outside loadBalancerSourceRanges",
    Outcome.REFUSED_UNKNOWN_SOURCE: "the client's address was not known yet: a second try is decided by it",
    Outcome.REFUSED_UNSTABLE: "the maps contradict themselves",
    Outcome.REFUSED_NO_SOURCE_PORT: "no port is left for the packet; see --outside-source-ports",
    Outcome.PASSED_UNKNOWN_FLOW: "the connection began elsewhere",
    Outcome.PASSED_OTHER_PROXY: "another proxy serves it",
    Outcome.PASSED_BOUND_TO_LOOPBACK: "the socket is bound to loopback, and no backend is on this host",
    Outcome.PASSED_OPTED_OUT: "the workload is opted out",
    Outcome.PROBED: "the agent's self-probe",
}


class Names(Protocol):
    """What ids stand for; see `event_names.EventNames`."""

    def pod(self, cgroup: int, netns: int, pid: int) -> str: ...

    def netns(self, cookie: int, pid: int) -> str: ...

    def owner(self, inode: int) -> NetnsOwner: ...

    def port(self, identifier: int) -> PortName | None: ...

    def backend(self, word: int) -> str: ...

    def service_at(self, address: bytes) -> str: ...


class Chosen:
    """Which events somebody wants: names as in `EVENT_NAMES`, none for the usual ones.

    Attributes:
        outcomes: the bit set for the hooks.

    Raises:
        UsageError: there is no such event.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        unknown = [name for name in names if name not in EVENT_NAMES]
        if unknown:
            raise UsageError(f"--event {unknown[0]!r}: no such event; there are {', '.join(EVENT_NAMES)}")
        wanted = set(names)
        if not wanted:
            wanted = {"translated", "refused", "passed", *AGENT_EVENTS}
        elif "all" in wanted:
            wanted = {*_GROUPS, *AGENT_EVENTS}
        outcomes = [one for name in wanted & _GROUPS.keys() for one in _GROUPS[name]]
        self.outcomes = mask_of(outcomes)
        self._events = {LOST, *(one.label for one in outcomes), *(wanted & set(AGENT_EVENTS))}
        self._only_switched = SWITCHED in wanted and "translated" not in wanted

    def accepts(self, row: Row) -> bool:
        """Whether the row of an event is wanted."""
        event: str = row["event"]
        if self._only_switched and event == Outcome.TRANSLATED.label:
            return bool(row["previous"])
        return event in self._events


class EventRows:
    """Rows of what was told.

    Args:
        names: what ids stand for.
        has_errno: whether refused calls end with an errno of their own (Linux 5.18), or all with EPERM.
    """

    def __init__(
        self,
        names: Names,
        has_errno: bool = True,
        clock: Callable[[], float] = time.time,
        since_boot: Callable[[], float] = time.monotonic,
    ) -> None:
        self._names = names
        self._has_errno = has_errno
        self._clock = clock
        self._since_boot = since_boot

    def rows(self, told: Sequence[Told]) -> list[Row]:
        """A row each."""
        booted = self._clock() - self._since_boot()
        found = []
        for one in told:
            match one:
                case Dial():
                    found.append(self._dial(decode_event(one.record), booted))
                case Change():
                    found.append(_change(one))
                case SocketEnded():
                    found.append(self._ended(one))
                case Noted():
                    found.append(_noted(one))
                case Beat():
                    pass
        return found

    def lost(self, count: int, why: str) -> Row:
        """A row that tells of events without one."""
        return {**EMPTY, "time": time_text(self._clock()), "event": LOST, "what": f"{count} events: {why}"}

    def _dial(self, event: Event, booted: float) -> Row:
        outcome = Outcome(event.outcome) if event.outcome in _KNOWN else None
        port = self._names.port(event.service_port) if event.service_port else None
        # Whoever sent a packet made no call here that an errno could end.
        outside = event.hook == OUTSIDE_HOOK
        number = ERRNO_OF.get(outcome) if outcome is not None and not outside else None
        previous = self._previous(event.previous) if event.previous >> 32 != event.backend_id else ""
        return {
            **EMPTY,
            "time": time_text(booted + event.time / 1e9),
            "event": outcome.label if outcome is not None else str(event.outcome),
            "pod": "" if outside else self._names.pod(event.cgroup, event.netns, event.pid),
            "netns": OUTSIDE if outside else self._names.netns(event.netns, event.pid),
            "pid": event.pid,
            "command": event.comm,
            **self._service(event, port),
            "protocol": PROTOCOLS.get(event.protocol, str(event.protocol)),
            "family": _family(event, port),
            "dialled": format_endpoint(event.dialled, event.dialled_port),
            "chosen": format_endpoint(event.backend, event.backend_port) if event.backend_port else "",
            "previous": previous,
            "errno": errno.errorcode[number if self._has_errno else errno.EPERM] if number else "",
            "what": f"was on {previous}, which takes no more"
            if previous
            else _WHY.get(outcome, "")
            if outcome is not None
            else "",
            "hook": Hook(event.hook).name.lower()
            if event.hook in _HOOKS
            else OUTSIDE
            if outside
            else str(event.hook),
            "cookie": event.socket,
        }

    def _previous(self, word: int) -> str:
        if not word:
            return ""
        return self._names.backend(word) or f"backend {word >> 32}"

    def _service(self, event: Event, port: PortName | None) -> Row:
        if port is not None:
            return _named(port)
        if event.service_port:
            return {"service": f"#{event.service_port} (removed)"}
        service = self._names.service_at(event.dialled)
        namespace, _, name = service.partition("/")
        return {"service": service, "namespace": namespace, "name": name}

    def _ended(self, one: SocketEnded) -> Row:
        port = self._names.port(one.service_port)
        same = port is not None and port.incarnation == one.incarnation
        owner = self._names.owner(one.netns)
        return {
            **EMPTY,
            "time": time_text(one.time),
            "event": SOCKET_ENDED,
            "pod": owner.pod,
            "netns": owner.name or str(one.netns),
            **(_named(port) if port is not None and same else {"service": f"#{one.service_port} (removed)"}),
            "protocol": PROTOCOLS.get(one.protocol, str(one.protocol)),
            "family": Family.IPV6.label if one.dialled.startswith("[") else Family.IPV4.label,
            "dialled": one.dialled,
            "chosen": one.chosen,
            "what": f"the socket {one.source} was ended: its backend takes no more",
            "cookie": one.cookie,
        }


def _named(port: PortName) -> Row:
    return {"service": port.service, "namespace": port.namespace, "name": port.name, "port": port.port}


def _family(event: Event, port: PortName | None) -> str:
    return port.family if port is not None else family_of(event.dialled).label


def _change(one: Change) -> Row:
    service, _, protocol = one.service.rpartition("/")
    namespace, _, rest = service.partition("/")
    name, _, port = rest.partition(":")
    return {
        **EMPTY,
        "time": time_text(one.time),
        "event": CHANGE,
        "service": one.service,
        "namespace": namespace,
        "name": name,
        "port": port,
        "protocol": protocol,
        "family": one.family,
        "what": one.what,
        "resourceVersion": one.resource_version,
    }


def _noted(one: Noted) -> Row:
    service = f"{one.namespace}/{one.name}" if one.namespace else ""
    return {
        **EMPTY,
        "time": time_text(one.time),
        "event": NOTICE,
        "service": service,
        "namespace": one.namespace,
        "name": one.name if one.namespace else "",
        "what": f"{one.reason}: {one.what}",
    }


def time_text(seconds: float) -> str:
    """Seconds since the epoch as in JSON."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def clock_text(row: Row) -> str:
    """The time of day here."""
    return datetime.fromisoformat(row["time"]).astimezone().strftime("%H:%M:%S.%f")[:-3]


def process_text(row: Row) -> str:
    """`PID/command`."""
    return f"{row['pid']}/{row['command']}" if row["pid"] else "-"


def client_text(row: Row) -> str:
    """The pod, or else the network namespace; the agent's own deeds have none."""
    return str(row["pod"] or row["netns"] or "-")


def what_text(row: Row) -> str:
    """Why, with what the caller saw or which version of an object it was."""
    said = [row["what"]]
    if row["errno"]:
        said.append(f"the caller got {row['errno']}")
    if row["resourceVersion"]:
        said.append(f"resourceVersion {row['resourceVersion']}")
    return "; ".join(filter(None, said)) or "-"


def event_alarm(row: Row) -> int:
    """Refusals and losses are trouble; what is passed on, ended or noted deserves a look."""
    event: str = row["event"]
    if event.startswith("refused") or event == LOST:
        return 2
    return 1 if event in (SOCKET_ENDED, NOTICE) or row["previous"] else 0


EMPTY: Row = {
    "time": "",
    "event": "",
    "pod": "",
    "netns": "",
    "pid": None,
    "command": "",
    "service": "",
    "namespace": "",
    "name": "",
    "port": "",
    "protocol": "",
    "family": "",
    "dialled": "",
    "chosen": "",
    "previous": "",
    "errno": "",
    "what": "",
    "resourceVersion": "",
    "hook": "",
    "cookie": None,
}
_KNOWN = frozenset(map(int, Outcome))
_HOOKS = frozenset(map(int, Hook))

EVENTS = Table(
    kind="EventList",
    columns=(
        Column("TIME", "time", clock_text),
        Column("EVENT", "event", alarm=event_alarm),
        Column("CLIENT", "pod", client_text),
        Column("PROCESS", "pid", process_text),
        Column("SERVICE", "service"),
        Column("DIALLED", "dialled"),
        Column("CHOSEN", "chosen"),
        Column("NETNS", "netns", wide=True),
        Column("HOOK", "hook", wide=True),
        Column("COOKIE", "cookie", wide=True),
        Column("WHAT", "what", what_text),
    ),
    identity=("time", "event", "service", "cookie", "what"),
    name=lambda row: f"{row['time']} {row['event']} {row['service'] or row['dialled']}",
)


def of_client(row: Row, wanted: str) -> bool:
    """Whether `wanted`, [NAMESPACE/]NAME or a network namespace's name, made the call."""
    pod: str = row["pod"]
    return bool(wanted) and wanted in (pod, pod.partition("/")[2], row["netns"])
