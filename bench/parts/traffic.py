"""What flows after connect(): nothing of kubesock is in its way any more."""

from __future__ import annotations

from bench.lab import Lab, Programmed, measured
from bench.lanes import Client, Lane, Times
from bench.objects import PORT, SERVER_PORT, SERVER_SERVICE_PORT, TARGET_PORT
from bench.scale import ENDPOINTS_OF_OTHERS, Scale
from bench.tables import RATIO_COLUMNS, Table, ratio_row

SERVICES = 1000
ROUNDS = 2000
STREAM_BYTES = 256 * 1024  # as in c/exchange.c
BYTES = 1.00
BYTES_TOLERANCE = 0.005
"""A ratio of 1.00 has two digits."""


def run(lab: Lab, scale: Scale) -> list[Table]:
    client = Client(lab)
    with Programmed(lab) as programmed:
        programmed.grow(SERVICES, ENDPOINTS_OF_OTHERS)
        programmed.attach()
        rows = []
        for ipv6 in (False, True):
            family = f"IPv{6 if ipv6 else 4}"
            rounds = min(scale.rounds, ROUNDS)
            times = client.run(_lanes("stream", ipv6, TARGET_PORT, PORT), rounds)
            rate = STREAM_BYTES / times.of("direct").median
            rows += _rows(
                times, f"{family}, {STREAM_BYTES >> 10} KiB, {rate:.1f} GB/s", BYTES + BYTES_TOLERANCE
            )
            for operation, label in (("request", "kept alive"), ("short-request", "a connection each")):
                lanes = _lanes(operation, ipv6, SERVER_PORT, SERVER_SERVICE_PORT)
                times = client.run(lanes, rounds)
                rate = 1e9 / times.of("direct").median
                rows += _rows(times, f"{family}, request {label}, {rate:,.0f}/s")
    notes = (
        "Time through a Service ÷ time on a direct, unhooked connection, so above 1 is slower; the rates are",
        "the direct ones of one client. Requests of 120 bytes, answers of 1,024, from a process of its own.",
    )
    return [Table("Traffic", RATIO_COLUMNS, rows, notes)]


def _lanes(operation: str, ipv6: bool, direct_port: int, service_port: int) -> list[Lane]:
    one = measured("one")
    pod = one.pod(0, ipv6)
    return [
        Lane("direct", operation, False, "tcp", pod, direct_port),
        Lane("A/A", operation, False, "tcp", pod, direct_port),
        Lane("through a Service", operation, True, "tcp", one.cluster_ips[ipv6], service_port),
    ]


def _rows(times: Times, prefix: str, budget: float | None = None) -> list[tuple[str, ...]]:
    reference = times.of("direct")
    return [
        ratio_row(f"{prefix}, A/A", times.ratio("A/A", "direct"), reference),
        ratio_row(f"{prefix}, Service", times.ratio("through a Service", "direct"), reference, budget),
    ]
