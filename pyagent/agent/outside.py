"""Keeps packets from outside served: at which devices, and that nobody takes them away."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from pyagent.agent.facts import Facts
from pyagent.agent.upkeep import tell_repaired
from pyagent.desired.outside import OutsideChoice, covered_devices
from pyagent.desired.snapshot import Snapshot
from pyagent.desired.state import DesiredState
from pyagent.kernel.devices import DeviceWatch, devices
from pyagent.kernel.outside import Outside
from pyagent.model.device import Covered
from pyagent.model.failures import KubesockError
from pyagent.model.service import DesiredChange

log = logging.getLogger(__name__)

LOOK_SECONDS = 4.0
"""Between two looks whether everything is as it should be when no device changes."""
SOON_SECONDS, IDLE_SECONDS = 0.25, 3600.0
"""The same while sockets are not served yet, and when there is nothing to do."""


class OutsideKeeper:
    """A thread of its own: compiling and netlink must not delay the loop."""

    def __init__(
        self,
        outside: Outside,
        choice: OutsideChoice,
        hooked: Callable[[], bool],
        facts: Facts,
    ) -> None:
        """
        Args:
            hooked: whether sockets are served by now: compiling must not delay that.
        """
        self._hooked = hooked
        self._facts = facts
        self._outside = outside
        self._choice = choice
        self._own: frozenset[bytes] | None = None  # before the first plan nobody knows the uplinks
        self._in_full = True  # all of the Node is known
        self._earlier: frozenset[int] | None = None  # where an earlier agent served
        self._fault = ""
        self._watch = DeviceWatch(self._look, self._patience)

    def start(self) -> None:
        self._watch.start()

    def stop(self) -> None:
        self._watch.stop()

    def follow(self, _change: DesiredChange, desired: DesiredState, snapshot: Snapshot, /) -> None:
        """After each plan: the Node's addresses say which devices are uplinks."""
        own, in_full = desired.node.own_addresses, "Node" not in snapshot.remembered
        if (own, in_full) != (self._own, self._in_full):
            self._own, self._in_full = own, in_full
            self._watch.wake()

    def _patience(self) -> float:
        if self._choice.is_off:
            return IDLE_SECONDS
        return LOOK_SECONDS if self._may_begin() else SOON_SECONDS

    def _may_begin(self) -> bool:
        """Until the first plan, which says where the node's uplinks are, what is attached serves."""
        return self._choice.is_off or (self._own is not None and self._hooked())

    def _look(self) -> None:
        if not self._may_begin():
            return
        try:
            refused = self._serve()
        except (KubesockError, OSError) as error:
            refused = str(error)
        self._tell(refused and f"packets from outside are not all served, sockets are: {refused}")

    def _tell(self, fault: str) -> None:
        if fault and fault != self._fault:
            log.error("%s; tried again in %.0f s", fault, LOOK_SECONDS)
        elif self._fault and not fault:
            log.info("packets from outside are served again")
        self._fault = fault

    def _serve(self) -> str:
        """Why something is not served; empty: all is."""
        wanted: Collection[Covered] = ()
        if not self._choice.is_off:
            self._outside.load()  # compiles for seconds: devices and addresses are looked at after it
            if self._earlier is None:
                self._earlier = self._outside.served()
            earlier = () if self._in_full else self._earlier
            wanted = covered_devices(self._choice, devices(), self._own or frozenset(), earlier)
        kept = self._outside.keep(wanted)
        for line in kept.changed:
            log.info("%s", line)
        tell_repaired(self._facts, kept.repaired)
        if kept.changed and not wanted and not self._choice.is_off and self._own:
            log.warning("--outside: no device of this node is an uplink; name them: --outside=DEVICES")
        return "; ".join(kept.refused)
