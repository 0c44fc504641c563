"""What happens in a demo: traffic all the time, and five changes while it runs."""

from __future__ import annotations

import copy
import errno
import time
from collections.abc import Callable, Collection

from pyagent.demo.agent_process import Agent
from pyagent.demo.cluster import DemoCluster
from pyagent.demo.objects import Objects, Target
from pyagent.demo.readings import Readings
from pyagent.demo.screen import Screen
from pyagent.demo.tally import Tally
from pyagent.demo.traffic import Answer
from pyagent.model.failures import KubesockError

ROUND_SECONDS = 0.1  # every client dials every Service port once a round
REFRESH_SECONDS = 0.25
SETTLE_SECONDS = 10.0
PROOF = 64
"""Dials in a row without a removed backend: a set that held it would show it, at 1 in 4, but for 10⁻⁸."""

UNALLOCATED = "10.96.200.200"
SCALED = ("shop", "checkout")
EMPTIED = ("shop", "payment")


class Story:
    """Runs the steps. `tally.complaints` is empty at the end if everything was right."""

    def __init__(
        self, cluster: DemoCluster, objects: Objects, agent: Agent, screen: Screen, duration: float
    ) -> None:
        self.cluster, self.objects, self.agent, self.screen = cluster, objects, agent, screen
        self.tally = Tally(objects)
        self.readings = Readings(agent.bpffs, cluster.sandbox.folder)
        self.share = duration / 6
        self._refresh_due = 0.0

    def run(self) -> None:
        """All steps but the end of the agent."""
        self.screen.step("Traffic to every Service, TCP and UDP, IPv4 and IPv6")
        self.traffic(self.share)
        self._summary(self.tally.states)
        self._refusals()
        self._scale_up_and_down()
        self._to_zero_and_back()
        for wrong in self.tally.miscounted(self.readings.read_now()):
            self._fault(wrong)

    def run_without_agent(self) -> None:
        """End the agent; its programs go on."""
        self.screen.step("The agent ends; what it attached goes on serving")
        code = self.agent.stop()
        if code != 0:
            self._fault(f"the agent ended with {code}")
        before = self.tally.dials
        self.traffic(self.share / 2)
        self.screen.say(f"{self.tally.dials - before} dials were right without it")

    def traffic(self, seconds: float) -> None:
        """Rounds of dials at a fixed rate, every answer judged."""
        targets = list(self.tally.states)
        deadline = time.monotonic() + seconds
        while (started := time.monotonic()) < deadline:
            for number in range(len(self.cluster.clients)):
                self._dial(targets, number)
            self._refresh()
            time.sleep(max(0.0, ROUND_SECONDS - (time.monotonic() - started)))

    def close(self) -> None:
        self.readings.close()

    def _refusals(self) -> None:
        """What no Service has is refused at once; what is no Service is left alone."""
        self.screen.step("Ports and addresses that no Service has; a pod dialled by its own address")
        web = next(target for target in self.tally.states if target.service == "web")
        client = self.cluster.clients[0]
        for what, target in (
            ("port 81 of shop/web", web._replace(port=81)),
            ("an unallocated address", web._replace(address=UNALLOCATED)),
        ):
            (answer,) = client.dial([target])
            self._expect(
                answer.error == errno.ECONNREFUSED,
                f"{what}, {target.dialled}: {errno.errorcode.get(answer.error, 'answered')}"
                f" after {answer.dial_ms:.2f} ms",
            )
        pod, endpoint = next(iter(self.objects.backends(web).items()))
        address, _, port = endpoint.rpartition(":")
        (answer,) = client.dial([web._replace(address=address, port=int(port))])
        self._expect(
            (answer.pod, answer.peer) == (pod, (address, int(port))),
            f"{endpoint}: answered by {answer.pod or answer.trouble}, getpeername() shows {answer.peer[0]}",
        )

    def _expect(self, right: bool, text: str) -> None:
        if right:
            self.screen.say(text)
        else:
            self._fault(text)

    def _scale_up_and_down(self) -> None:
        targets = self._targets_of(SCALED)
        self.screen.step(f"{'/'.join(SCALED)} is scaled up by two pods")
        new = set(self.objects.add_pods(targets[0], 2))
        self.cluster.start_pods(plan for name, plan in self.objects.pods().items() if name in new)
        took = self._change(targets, lambda: None)
        self.screen.say(f"both new pods have answered {took:.0f} ms after the file changed")
        self.traffic(self.share)
        self._summary(targets)

        self.screen.step(f"{'/'.join(SCALED)} is scaled down again: its pods terminate, then go")
        took = self._change(targets, lambda: self.objects.mark_terminating(targets[0], new))
        self.screen.say(f"terminating: {took:.0f} ms after the file changed {PROOF} dials avoided them")
        self.traffic(self.share / 2)
        self._change(targets, lambda: self.objects.remove_pods(targets[0], new))
        self.cluster.stop_pods(new)
        self.traffic(self.share / 2)
        self._summary(targets)

    def _to_zero_and_back(self) -> None:
        targets = self._targets_of(EMPTIED)
        saved = copy.deepcopy(self.objects.slices(*EMPTIED))
        everyone = set(self.objects.backends(targets[0]))
        self.screen.step(f"{'/'.join(EMPTIED)} loses all its pods: ECONNREFUSED at once")
        self._change(targets, lambda: self.objects.remove_pods(targets[0], everyone))
        refusals = [answer for answer in self._dial(targets * 50, 0) if answer.error]
        slowest = max((answer.dial_ms for answer in refusals), default=0.0)
        self.screen.say(
            f"{len(refusals)} of 50 dials refused with ECONNREFUSED, the slowest after {slowest:.2f} ms"
        )
        self.traffic(self.share)
        self._summary(targets)

        self.screen.step(f"{'/'.join(EMPTIED)} gets its pods back")
        took = self._change(targets, lambda: self.objects.put_back(targets[0], saved))
        self.screen.say(f"every pod has answered {took:.0f} ms after the file changed")
        self.traffic(self.share)
        self._summary(targets)

    def _change(self, targets: Collection[Target], edit: Callable[[], None]) -> float:
        """Edit the objects, write their file, wait until clients see it. Returns milliseconds from the write.

        Seen means: every added pod has answered, and of the last PROOF dials none reached a removed one.

        Raises:
            KubesockError: it is not seen within SETTLE_SECONDS.
        """
        edit()
        self.tally.begin_change(targets)
        for target in targets:
            self.objects.write(self.objects.file_of(target))
        written = time.monotonic()
        for target in targets:
            self._wait_seen(target, written)
        seen = time.monotonic()
        self.tally.end_change(targets)
        return (seen - written) * 1000

    def _wait_seen(self, target: Target, written: float) -> None:
        old, new = self.tally.states[target]
        missing, clean = set(new) - set(old), 0
        while missing or clean < PROOF:
            if time.monotonic() - written > SETTLE_SECONDS:
                raise KubesockError(
                    f"{target}: the change of its EndpointSlice is not seen after {SETTLE_SECONDS:.0f} s"
                    f"\n{self.agent.log_tail()}"
                )
            for answer in self._dial([target] * 8, 0):
                clean = clean + 1 if (answer.pod in new if new else answer.error) else 0
                missing.discard(answer.pod)
            self._refresh()

    def _dial(self, targets: list[Target], client_number: int) -> list[Answer]:
        client = self.cluster.clients[client_number]
        answers = client.dial(targets)
        for answer in answers:
            if wrong := self.tally.add(answer, client):
                self.screen.fault(f"{wrong}, dialled from {client.name}")
        return answers

    def _targets_of(self, service: tuple[str, str]) -> list[Target]:
        return [target for target in self.tally.states if (target.namespace, target.service) == service]

    def _summary(self, targets: Collection[Target]) -> None:
        names = {str(target) for target in targets}
        self.screen.summary(row for row in self.tally.rows(self.readings.read_now()) if row.service in names)

    def _refresh(self) -> None:
        self.readings.poll()
        if time.monotonic() >= self._refresh_due:
            self._refresh_due = time.monotonic() + REFRESH_SECONDS
            self.screen.refresh(self.tally.rows(self.readings.chosen))

    def _fault(self, text: str) -> None:
        self.tally.complaints[text] += 1
        self.screen.fault(text)
