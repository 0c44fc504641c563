"""Counts of what clients got, and the rows that show them beside the kernel's counts."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Collection, Mapping

from pyagent.demo.objects import TERMINATING, Objects, Target
from pyagent.demo.readings import Key
from pyagent.demo.screen import BackendCell, Row
from pyagent.demo.traffic import Answer, Client, complaint


class Tally:
    """Judges every answer against what the Service may be at that moment.

    `states` has, for each target, the backends (pod → endpoint) that may answer: one mapping, or two while a
    change is on its way to the kernel.
    """

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.states: dict[Target, list[dict[str, str]]] = {
            target: [objects.backends(target)] for target in objects.targets()
        }
        self.answers: dict[Target, Counter[str]] = {target: Counter() for target in self.states}
        self.refused: Counter[Target] = Counter()
        self.endpoints: dict[tuple[Target, str], str] = {}
        self.complaints: Counter[str] = Counter()
        self._interrupted: set[tuple[Target, str]] = set()  # whose count in the kernel began anew
        for target in self.states:
            self._remember_endpoints(target)

    @property
    def dials(self) -> int:
        return sum(counter.total() for counter in self.answers.values()) + self.refused.total()

    def begin_change(self, targets: Collection[Target]) -> None:
        """The objects have changed; from now on the old and the new state are both right."""
        for target in targets:
            old, new = self.states[target][-1], self.objects.backends(target)
            self.states[target] = [old, new]
            self._interrupted.update((target, pod) for pod in old if pod not in new)
            self._remember_endpoints(target)

    def end_change(self, targets: Collection[Target]) -> None:
        """The kernel has it; from now on only the new state is right."""
        for target in targets:
            del self.states[target][:-1]

    def add(self, answer: Answer, client: Client) -> str:
        """Count an answer. Returns what is wrong with it the first time that is seen, else an empty text."""
        wrong = complaint(answer, self.states[answer.target], client.addresses)
        if wrong:
            self.complaints[wrong] += 1
            return wrong if self.complaints[wrong] == 1 else ""
        if answer.error == errno.ECONNREFUSED:
            self.refused[answer.target] += 1
        else:
            self.answers[answer.target][answer.pod] += 1
        return ""

    def rows(self, chosen: Mapping[Key, int]) -> list[Row]:
        """One row for each target, with the kernel's counts where a reading has them."""
        terminating = {
            endpoint["targetRef"]["name"]
            for piece in self.objects.of_kind("EndpointSlice")
            for endpoint in piece["endpoints"] or ()
            if endpoint["conditions"] == TERMINATING
        }
        return [
            Row(
                str(target),
                target.dialled,
                target.protocol,
                counter.total(),
                self.refused[target],
                tuple(self._cells(target, chosen, terminating)),
            )
            for target, counter in self.answers.items()
        ]

    def miscounted(self, chosen: Mapping[Key, int]) -> list[str]:
        """Backends that have been there all the time, of which the kernel counts other than clients got."""
        return [
            f"{target}: the kernel chose {pod} {count} times, clients got {answers} answers from it"
            for target, counter in self.answers.items()
            for pod, answers in counter.items()
            if (target, pod) not in self._interrupted
            and (count := chosen.get(key_of(target, self.endpoints[target, pod]))) is not None
            and count != answers
        ]

    def _cells(
        self, target: Target, chosen: Mapping[Key, int], terminating: Collection[str]
    ) -> list[BackendCell]:
        current = self.states[target][-1]
        pods = dict.fromkeys((*current, *self.answers[target])) if current else {}
        return [
            BackendCell(
                pod,
                self.endpoints[target, pod],
                self.answers[target][pod],
                chosen.get(key_of(target, self.endpoints[target, pod])),
                "terminating" if pod in terminating else "serving" if pod in current else "gone",
            )
            for pod in pods
        ]

    def _remember_endpoints(self, target: Target) -> None:
        for pod, endpoint in self.states[target][-1].items():
            self.endpoints[target, pod] = endpoint


def key_of(target: Target, endpoint: str) -> Key:
    """How `kubesock backends` names a backend of a target."""
    return f"{target}/{target.protocol}", endpoint
