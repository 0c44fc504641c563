"""What the agent answers on its socket, as far as the screen shows it; newer agents may say more."""

from __future__ import annotations

import msgspec


class Source(msgspec.Struct, rename="camel"):
    kind: str
    state: str = ""
    age_seconds: float = 0.0
    resource_version: str = ""
    disconnects: int = 0
    error: str = ""


class Plan(msgspec.Struct, rename="camel"):
    seconds_ago: float | None = None
    writes: int = 0
    failures: int = 0
    error: str = ""
    waiting_seconds: float = 0.0
    service_changes: int = 0
    endpoint_changes: int = 0


class Latency(msgspec.Struct, rename="camel"):
    changes: int = 0
    half_within_seconds: float | None = None
    most_within_seconds: float | None = None


class Sync(msgspec.Struct, rename="camel"):
    ready: bool = False
    not_ready_because: list[str] = []
    healthy: bool = True
    started_seconds_ago: float | None = None
    sources: list[Source] = []
    last_plan: Plan = msgspec.field(default_factory=Plan)
    latency: Latency = msgspec.field(default_factory=Latency)
    problems: list[str] = []
    no_room: list[str] = []
    repairs: int = 0
