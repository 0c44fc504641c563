"""`--remote-node-ports=auto`: all Nodes are followed while they are few, else only this node's own.

Every node following every Node costs the API server the square of their number.
"""

from __future__ import annotations

import logging
from typing import Any

from pyagent.cluster.reflector import Reflector
from pyagent.cluster.refusals import Refused
from pyagent.cluster.resources import nodes
from pyagent.model.source_events import Changed, Deleted, Replaced, Scoped, SourceEvent

log = logging.getLogger(__name__)

MOST_NODES = 500
FEW_AGAIN = 450
"""A cluster that grows and shrinks around the limit must not make all its nodes list everything again."""


class TooManyNodes(Exception):
    """While all Nodes were followed, their number has crossed the limit."""


class NodeReflector(Reflector):
    """A `Reflector` that decides before each list whose Nodes it asks for, and narrows when they grow many.

    Back again it goes only before a list, which comes every `Timing.relist_after`, a long one less often.
    """

    def __init__(self, own_name: str, *args: Any, most: int = MOST_NODES, few: int = FEW_AGAIN) -> None:
        """
        Args:
            own_name: this node's.
            args: those of `Reflector`, without the resource.
            most: so many Nodes are followed.
            few: with so many, all are followed again after they had been too many.
        """
        super().__init__(nodes(None), *args)
        self._own_name = own_name
        self._most = most
        self._few = few
        self._everything: bool | None = None  # None: not decided yet
        self._decided = False  # for the list that comes next
        self._names: set[str] = set()
        self._pass_on = self._emit
        self._emit = self._count_and_emit

    def _round(self) -> float:
        try:
            return super()._round()
        except TooManyNodes:
            self._scope(False, f"more than {self._most} Nodes")
            self._decided = True
            self._forget()
            return 0.0

    def _before_list(self) -> None:
        if self._decided:
            return
        try:
            count = self._lists.count(self._most)
        except Refused as error:
            if error.code != 403:
                raise
            self._scope(False, "this account may not list all Nodes")
        else:
            most = self._few if self._everything is False else self._most
            self._scope(count <= most, f"more than {most} Nodes" if count > most else f"{count} Nodes")
        self._decided = True

    def _scope(self, everything: bool, why: str) -> None:
        before, self._everything = self._everything, everything
        if before is everything:
            return
        self._lists.resource = nodes(None if everything else self._own_name)
        self._held = min(1, self._held)  # the others are not lost, but left
        if not everything:
            log.info("%s: only the own one is followed; nodePorts of the others stay untranslated", why)
        elif before is not None:
            log.info("%s: all are followed again; nodePorts of the others are translated", why)
        self._pass_on(Scoped("Node", everything))

    def _count_and_emit(self, event: SourceEvent, /) -> None:
        match event:
            case Replaced():
                self._names = {one.metadata.name for one in event.objects}
                self._decided = False
            case Changed():
                self._names.add(event.object.metadata.name)
            case Deleted():
                self._names.discard(event.name)
        if self._everything and len(self._names) > self._most:
            raise TooManyNodes
        self._pass_on(event)
