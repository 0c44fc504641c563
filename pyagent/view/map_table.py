"""`kubesock maps`: a row for each map."""

from __future__ import annotations

from pyagent.view.fill import EVICTING, NEARLY_FULL_PERCENT
from pyagent.view.live import LiveMaps, MapFacts
from pyagent.view.tables import Column, Row, Table

_ALARMING_PERCENT = 95.0


def map_rows(live: LiveMaps) -> list[Row]:
    """A row for each map. `entries` and `fillPercent` are None where a map has no notion of fill."""
    return [
        {
            "name": facts.name,
            "type": facts.type,
            "entries": facts.entries,
            "capacity": facts.capacity,
            "fillPercent": facts.fill_percent,
            "memoryBytes": facts.memory,
            "keyBytes": facts.key_size,
            "valueBytes": facts.value_size,
            "evicts": facts.name in EVICTING,
            "old": not live.agent.alive,
        }
        for facts in live.maps
    ]


def nearly_full(facts: MapFacts) -> bool:
    """Whether the map may soon refuse entries."""
    percent = facts.fill_percent
    return percent is not None and percent > NEARLY_FULL_PERCENT and facts.name not in EVICTING


def bytes_text(count: int) -> str:
    """`512`, `12.0Ki`, `8.0Mi`."""
    amount = float(count)
    for unit in ("", "Ki", "Mi"):
        if amount < 1024:
            return f"{amount:.1f}{unit}" if unit else str(count)
        amount /= 1024
    return f"{amount:.1f}Gi"


def _alarm(row: Row) -> int:
    percent = row["fillPercent"]
    if percent is None or row["evicts"]:
        return 0
    return 2 if percent > _ALARMING_PERCENT else 1 if percent > NEARLY_FULL_PERCENT else 0


MAPS = Table(
    kind="MapList",
    columns=(
        Column("NAME", "name"),
        Column("TYPE", "type"),
        Column("ENTRIES", "entries"),
        Column("CAPACITY", "capacity"),
        Column(
            "FILL",
            "fillPercent",
            lambda row: "-" if row["fillPercent"] is None else f"{row['fillPercent']:.1f}%",
            alarm=_alarm,
        ),
        Column("MEMORY", "memoryBytes", lambda row: bytes_text(row["memoryBytes"])),
        Column("KEY", "keyBytes", wide=True),
        Column("VALUE", "valueBytes", wide=True),
        Column("EVICTS", "evicts", wide=True),
    ),
    identity=("name",),
    name=lambda row: str(row["name"]),
)
