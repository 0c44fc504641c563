"""What the hooks answer to one dial, step by step as `bpf/lib/translate.h` does, with what each step saw."""

from __future__ import annotations

import struct
from typing import NamedTuple

from pyagent.datapath.decoded import RawMaps, decode_backend
from pyagent.datapath.evaluate import Answer, evaluate, evaluate_packet
from pyagent.datapath.layout import AFFINITY, AFFINITY_KEY, CONFIG, Feature, WorkloadKind
from pyagent.model.address import Network, family_of, is_unspecified
from pyagent.model.outcome import Outcome
from pyagent.model.service import View
from pyagent.view.explain_maps import ClientMaps
from pyagent.view.explain_question import Client, Dial, is_in_node_namespace, node_cookie
from pyagent.view.live import LiveMaps

SLOT_SCAN = 64
"""How far the hooks look for a backend that is not where it was."""


class Affinity(NamedTuple):
    """The client's entry of a service port.

    Attributes:
        word: backend id << 32 | incarnation.
        remaining: seconds until it is forgotten; negative: it is.
        slot: where in the set the backend stands; None: it is not eligible.
    """

    word: int
    remaining: int
    slot: int | None

    @property
    def decides(self) -> bool:
        return self.remaining >= 0 and self.slot is not None


class Admission(NamedTuple):
    """How source ranges judge the client. `admitted` is None where nobody in particular dials."""

    ranges: tuple[Network, ...]
    source: bytes | None
    admitted: bool | None


class LookUp(NamedTuple):
    """One dial, replayed.

    Attributes:
        outcome: what the hook does for this client; for nobody in particular what it does without source
            ranges, opt-out and affinity.
        chances: probability of each of the answer's candidates.
    """

    dial: Dial
    client: Client
    answer: Answer
    outcome: Outcome
    chances: tuple[float, ...] = ()
    affinity: Affinity | None = None
    admission: Admission | None = None


def look_up(live: LiveMaps, clients: ClientMaps, dial: Dial, client: Client) -> LookUp:
    """Replay a dial on the maps' contents."""
    raw = live.raw
    if client.outside:
        answer = evaluate_packet(raw, *dial)
    else:
        answer = evaluate(raw, *dial, in_node_namespace=is_in_node_namespace(raw, client))
    found = LookUp(dial, client, answer, answer.outcome)
    if answer.outcome is Outcome.NOT_A_SERVICE:
        return found
    if is_left_alone(raw, clients, client):
        return found._replace(outcome=Outcome.PASSED_OPTED_OUT)
    if answer.header is None:
        return found
    if is_restricted(answer):
        admission = admit(clients, answer.service_port, dial, client)
        found = found._replace(admission=admission)
        if admission.admitted is False:
            known = admission.source is not None
            refusal = Outcome.REFUSED_SOURCE_RANGE if known else Outcome.REFUSED_UNKNOWN_SOURCE
            return found._replace(outcome=refusal)
    return _choose(live, found) if answer.candidates else found


def _choose(live: LiveMaps, found: LookUp) -> LookUp:
    candidates = found.answer.candidates
    entry = affinity_of(live, found.answer, found.client)
    if entry is not None and entry.decides and entry.slot is not None:
        if not candidates[entry.slot].matches:
            return found._replace(outcome=Outcome.REFUSED_UNSTABLE, affinity=entry)
        chances = tuple(1.0 if slot == entry.slot else 0.0 for slot in range(len(candidates)))
        return found._replace(outcome=Outcome.TRANSLATED_BY_AFFINITY, affinity=entry, chances=chances)
    usable = [candidate.matches for candidate in candidates]
    chances = tuple(1 / len(candidates) if matches else 0.0 for matches in usable)
    outcome = Outcome.TRANSLATED if any(usable) else Outcome.REFUSED_UNSTABLE
    return found._replace(outcome=outcome, affinity=entry, chances=chances)


def is_left_alone(raw: RawMaps, clients: ClientMaps, client: Client) -> bool:
    """Whether the node translates for this client at all; for nobody in particular it does."""
    if client.cookie is None or len(raw.config) < CONFIG.size:
        return False
    config = CONFIG.as_dict(memoryview(raw.config))
    features = int(config["features"])
    if features & Feature.HOST_ONLY and client.cookie != node_cookie(raw):
        return True
    if not features & Feature.OPT_OUT:
        return False
    if (WorkloadKind.NETNS, client.cookie) in clients.opted_out:
        return True
    level, deeper = int(config["opt_out_level"]), int(config["opt_out_deeper"])
    depths = (level, deeper) if level else ()
    return any(
        (WorkloadKind.CGROUP, client.cgroups[depth]) in clients.opted_out
        for depth in depths
        if depth < len(client.cgroups)
    )


def is_restricted(answer: Answer) -> bool:
    """Whether the frontend's clients are held against source ranges."""
    return answer.header is not None and answer.header.view in (View.RESTRICTED, View.RESTRICTED_LOCAL)


def admit(clients: ClientMaps, service_port: int, dial: Dial, client: Client) -> Admission:
    """Hold a client against the source ranges of a service port, by its namespace's address."""
    ranges = clients.ranges.get(service_port, ())
    if client.outside:
        return Admission(ranges, client.outside, any(client.outside in network for network in ranges))
    if client.cookie is None:
        return Admission(ranges, None, None)
    source = clients.addresses.get(client.cookie, {}).get(family_of(dial.address), bytes(16))
    if is_unspecified(source):
        return Admission(ranges, None, False)
    return Admission(ranges, source, any(source in network for network in ranges))


def affinity_of(live: LiveMaps, answer: Answer, client: Client) -> Affinity | None:
    """The client's entry, if the service port has affinity and remembers this client."""
    header = answer.header
    if header is None or not header.affinity_seconds or (client.cookie is None and not client.outside):
        return None
    halves = struct.unpack("=QQ", client.outside) if client.outside else (client.cookie, 0)
    key = AFFINITY_KEY.pack(answer.service_port, answer.incarnation, *halves)
    value = next((held for known, held in live.affinity if known == key), b"")
    if len(value) != AFFINITY.size:
        return None
    word, last_used, hint, _ = AFFINITY.packer.unpack(value)
    age = int(live.now) - last_used
    words = [candidate.backend_id << 32 | candidate.incarnation for candidate in answer.candidates]
    slot: int | None = None
    if hint < len(words) and words[hint] == word:
        slot = hint
    elif word in words[:SLOT_SCAN]:
        slot = words.index(word)
    return Affinity(word, header.affinity_seconds - age, slot)


def backend_endpoint(raw: RawMaps, word: int) -> tuple[bytes, int] | None:
    """Address and port of a slot's or an affinity entry's backend; None if it is gone."""
    backend = decode_backend(raw.backends, word >> 32)
    if backend is None or backend.incarnation != word & 0xFFFFFFFF:
        return None
    return backend.address, backend.port
