"""How much is measured: everything, or what fits into a minute and a half."""

from __future__ import annotations

from typing import NamedTuple


class Scale(NamedTuple):
    """Sizes and repetitions.

    Attributes:
        rounds: timed calls of each lane.
        services: beside the measured ones, for connect().
        agent_sizes: (Services, endpoints of each) for the agent as a process.
        cluster: (Services, endpoints of all) behind an API server.
        sockets: open through a Service at once.
    """

    rounds: int
    services: tuple[int, ...]
    peer_services: tuple[int, ...]
    agent_sizes: tuple[tuple[int, int], ...]
    starts: int
    changes: int
    syncs: int
    blocks: int
    idle_seconds: float
    cluster: tuple[int, int]
    sockets: int


FULL = Scale(
    rounds=3000,
    services=(1, 1000, 10_000, 60_000),
    peer_services=(1000, 10_000),
    agent_sizes=((10, 10), (5000, 10), (10_000, 10)),
    starts=5,
    changes=100,
    syncs=3,
    blocks=160,
    idle_seconds=10.0,
    cluster=(60_000, 250_000),
    sockets=100_000,
)
QUICK = Scale(
    rounds=1200,
    services=(10, 1000),
    peer_services=(1000,),
    agent_sizes=((10, 10), (1000, 10)),
    starts=2,
    changes=50,
    syncs=2,
    blocks=60,
    idle_seconds=3.0,
    cluster=(3000, 12_500),
    sockets=10_000,
)
ENDPOINTS_OF_OTHERS = 3
"""Of each Service beside the measured ones: 60,000 of them still fit the default map sizes."""
