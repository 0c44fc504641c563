"""What `Facts` says to its readers: everything at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from pyagent.agent.histogram import Histogram
from pyagent.model.address import Family
from pyagent.model.source_events import Problem

HealthPage = Literal["healthz", "livez"]
HEALTH_PAGES: tuple[HealthPage, ...] = ("healthz", "livez")


class Watch(msgspec.Struct, frozen=True):
    """How the source of one kind stands."""

    state: str  # as SourceState's
    error: str
    resource_version: str
    age: float  # seconds since the kind's objects were last known to be current; 0 while they are
    disconnects: int


class FamilyHealth(msgspec.Struct, frozen=True):
    last_updated: float  # seconds since the epoch
    healthy: bool


class View(msgspec.Struct, frozen=True):
    """All facts at one moment. Wall-clock times are seconds since the epoch."""

    now: float
    started: float
    ready: bool
    not_ready_because: tuple[str, ...]
    observing: bool  # nothing is meant to be attached
    synced: bool  # every needed kind was listed
    planned: bool  # a first plan was carried out
    watches: Mapping[str, Watch]
    problems: tuple[Problem, ...]
    unfit: tuple[str, ...]
    hooks: Mapping[str, bool]
    repairs: int
    probe_ok: bool
    probe_error: str
    node_eligible: bool
    node_reason: str
    healthy: bool
    families: Mapping[Family, FamilyHealth]
    last_updated: float
    last_queued: float  # 0.0: nothing was queued yet
    queued_for: float  # seconds that the oldest update waits; 0.0: none does
    last_error: str  # of the last attempt to write maps; "" after a success
    failures: int
    writes: int
    service_changes: int
    endpoint_changes: int
    services_pending: int
    endpoints_pending: int
    no_local_endpoints: Mapping[tuple[str, Family], int]  # (internal | external, family)
    sockets_destroyed: Mapping[Family, int]
    answers: Mapping[tuple[HealthPage, int], int]
    full_syncs: Histogram
    partial_syncs: Histogram
    changes: Histogram
    network_programming: Mapping[Family, Histogram]
    reaps: Histogram
