"""The verbs that ask the agent, against a real one: explain, diff, status --config, status."""

from __future__ import annotations

import json
import signal
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute

from pyagent.datapath.encoded import address_frontend_key
from pyagent.datapath.layout import frontend_word
from pyagent.datapath.writes import Put, Remove, Store
from pyagent.demo.calls import call
from pyagent.demo.children import wait_until
from pyagent.kernel.map_set import MapSet, current_folder
from pyagent.model.address import Protocol, parse_address
from tests.datapath.ground import (
    Agent,
    Manifests,
    SmallCluster,
    StartAgent,
    endpoint_slice,
    service,
    service_cidr,
)
from tests.datapath.ground.manifests import node

pytestmark = pytest.mark.kernel

HTTP = [("http", 80, "TCP")]
TARGET = [("http", 8080, "TCP")]
GONE = {"ready": False, "serving": False, "terminating": False}


@pytest.fixture
def agent(cluster: SmallCluster, manifests: Manifests, start_agent: StartAgent, tmp_path: Path) -> Agent:
    """It serves `web` with two endpoints, one of them not ready, and `headless`."""
    a, b = cluster.server("a"), cluster.server("b")
    manifests.write(
        "web",
        [
            node("n", [cluster.node.ipv4], {"topology.kubernetes.io/zone": "z1"}),
            service_cidr("10.96.0.0/16"),
            service("web", ["10.96.0.1"], HTTP),
            endpoint_slice("web", [a.ipv4], TARGET),
            endpoint_slice("web", [b.ipv4], TARGET, suffix="b", conditions=GONE),
            service("headless", [], HTTP),
        ],
    )
    state_dir = tmp_path / ("a-state-directory-with-a-long-name-" * 4)
    state_dir.mkdir()
    return start_agent(manifests.folder, state_dir=state_dir)


@pytest.fixture
def rare_address(cluster: SmallCluster) -> Iterator[str]:
    """An address of the client's namespace that no other session on this machine has."""
    address = f"fd44:ffff::{cluster.sandbox.id[:3]}:{cluster.sandbox.id[3:]}"

    def change(command: str) -> None:
        with IPRoute() as route:
            route.addr(command, index=route.link_lookup(ifname="lo")[0], address=address, prefixlen=128)

    call(lambda: change("add"), netns=cluster.client.netns)
    yield address
    call(lambda: change("del"), netns=cluster.client.netns)


def asked(agent: Agent, verb: str, *arguments: str) -> tuple[int, str, str]:
    return agent.verb(verb, f"--state-dir={agent.state_dir}", *arguments)


def explained(agent: Agent, *arguments: str) -> dict[str, Any]:
    code, out, err = asked(agent, "explain", "-o", "json", *arguments)
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    assert (found["apiVersion"], found["kind"]) == ("kubesock.io/v1", "Explanation")
    return found


def test_explain_tells_where_a_dial_goes_and_why_each_endpoint_is_in_or_out(
    agent: Agent, cluster: SmallCluster
) -> None:
    a, b = cluster.server("a"), cluster.server("b")
    found = explained(agent, "10.96.0.1:80")
    assert (found["level"], found["outcome"], found["errno"]) == ("agent", "translated", None)
    assert found["service"]["service"] == "default/web:http/TCP"
    assert found["frontend"] == {"frontend": "10.96.0.1:80", "kind": "clusterIP", "tagMatches": True}
    assert [(x["backend"], x["probability"]) for x in found["backends"]] == [(f"{a.ipv4}:8080", 1.0)]
    assert {x["endpoint"]: (x["in"], x["why"]) for x in found["endpoints"]} == {
        f"{a.ipv4}:8080": (True, "ready"),
        f"{b.ipv4}:8080": (False, "not ready"),
    }
    text = asked(agent, "explain", "default/web")[1]
    assert f"10.96.0.1:80/TCP: goes to {a.ipv4}:8080" in text
    assert "not ready" in text


def test_explain_knows_the_client_of_from(agent: Agent, cluster: SmallCluster, rare_address: str) -> None:
    def client(text: str) -> dict[str, Any]:
        found: dict[str, Any] = explained(agent, "--from", text, "default/web")["from"]
        return found

    pod = client(str(cluster.client.netns))
    assert pod["netnsCookie"] > 0
    assert pod["inNodeNamespace"] is False
    for text in (cluster.client.netns.name, rare_address, f"cookie:{pod['netnsCookie']}"):
        assert client(text)["netnsCookie"] == pod["netnsCookie"]
    assert client("host")["inNodeNamespace"] is True
    assert client(str(cluster.node.netns))["inNodeNamespace"] is True


def test_a_pod_is_found_by_the_name_that_its_processes_have(agent: Agent, cluster: SmallCluster) -> None:
    name = f"pod-{cluster.sandbox.id}"
    sleeper = ["/usr/bin/env", f"HOSTNAME={name}", "/bin/sleep", "60"]
    process = cluster.sandbox.spawn(sleeper, netns=cluster.client.netns)
    wanted = explained(agent, "--from", str(cluster.client.netns), "web")["from"]["netnsCookie"]
    assert wait_until(lambda: b"sleep" in Path(f"/proc/{process.pid}/cmdline").read_bytes()[:11], timeout=5.0)
    for text in (name, f"shop/{name}", str(process.pid)):
        assert explained(agent, "--from", text, "web")["from"]["netnsCookie"] == wanted
    process.kill()


def test_what_cannot_be_resolved_is_a_usage_error(agent: Agent) -> None:
    for arguments in (("no-such-service",), ("10.96.0.1",), ("10.96.0.1:80", "--from", "nobody")):
        code, out, err = asked(agent, "explain", *arguments)
        assert (code, out) == (2, "")
        assert err.startswith("kubesock: ")
        assert err.count("\n") == 1


def test_without_an_agent_explain_answers_from_the_maps(agent: Agent, cluster: SmallCluster) -> None:
    agent.process.send(signal.SIGKILL)
    agent.process.wait(10)
    found = explained(agent, "10.96.0.1:80")
    assert (found["level"], found["outcome"], found["endpoints"], found["old"]) == (
        "maps",
        "translated",
        [],
        True,
    )
    assert "map level only" in asked(agent, "explain", "web")[1]


def test_diff_is_silent_while_maps_are_as_desired(agent: Agent) -> None:
    assert asked(agent, "diff") == (0, "", "")
    assert json.loads(asked(agent, "diff", "-o", "json")[1]) == {
        "apiVersion": "kubesock.io/v1",
        "kind": "DifferenceList",
        "count": 0,
        "items": [],
    }


def test_diff_names_what_somebody_changed_in_the_maps(agent: Agent) -> None:
    key = address_frontend_key(parse_address("10.96.0.1"), 80, Protocol.TCP)
    foreign = address_frontend_key(parse_address("10.9.9.9"), 80, Protocol.TCP)
    maps = MapSet.open(current_folder(agent.bpffs), writable=True)
    held = maps.get("frontends", key)
    assert held is not None
    maps.apply(
        [
            Remove("frontends", key),
            Put("frontends", foreign, struct.pack("=Q", frontend_word(1, foreign))),
            Store("sets", 8, bytes(8)),
        ]
    )
    maps.close()
    code, out, _ = asked(agent, "diff")
    assert code == 1
    lines = out.splitlines()
    assert any(
        line == "frontend 10.96.0.1:80/TCP: the kernel has nothing, and should have"
        " default/web:http/TCP (IPv4), set Cluster"
        for line in lines
    )
    assert any(line.startswith("frontend 10.9.9.9:80/TCP: the kernel has ") for line in lines)
    assert any(line.startswith("default/web:http/TCP (IPv4), set Cluster: ") for line in lines)
    items = json.loads(asked(agent, "diff", "-o", "json")[1])["items"]
    assert len(items) == len(lines)


def test_diff_needs_a_living_agent(agent: Agent, tmp_path: Path) -> None:
    assert agent.stop() == 0
    code, out, err = asked(agent, "diff")
    assert (code, out) == (3, "")
    assert "only the agent knows what is desired" in err
    assert not (agent.state_dir / "agent.sock").exists()


def test_the_agent_of_other_pins_is_not_asked(agent: Agent, tmp_path: Path) -> None:
    code, _, err = agent.verb("diff", f"--state-dir={agent.state_dir}", f"--bpffs={tmp_path}")
    assert code == 3
    assert str(agent.bpffs) in err


def test_the_socket_is_for_root_alone(agent: Agent) -> None:
    facts = (agent.state_dir / "agent.sock").lstat()
    assert stat.S_ISSOCK(facts.st_mode)
    assert stat.S_IMODE(facts.st_mode) == 0o600


def test_status_tells_every_setting_and_where_it_came_from(agent: Agent) -> None:
    code, out, err = asked(agent, "status", "--config", "-o", "json")
    assert (code, err) == (0, "")
    settings = {row["setting"]: row for row in json.loads(out)["items"]}
    assert settings["node-name"]["value"] == "n"
    assert (settings["node-name"]["origin"], settings["node-name"]["from"]) == ("flag", "--node-name")
    assert settings["udp-grace"]["origin"] == "default"
    text = asked(agent, "status", "--config")[1]
    assert any(line.split()[:4] == ["node-name", "n", "flag", "--node-name"] for line in text.splitlines())


def test_status_tells_readiness_and_the_sources(agent: Agent) -> None:
    code, out, _ = asked(agent, "status", "-o", "json")
    sync = json.loads(out)["sync"]
    assert code == 0
    assert sync["ready"] is True
    assert {row["kind"] for row in sync["sources"]} >= {"Service", "EndpointSlice"}
    text = asked(agent, "status")[1]
    assert any(line.split() == ["ready", "yes"] for line in text.splitlines())


def test_a_restarted_agent_takes_the_place_of_a_killed_one(
    agent: Agent, manifests: Manifests, start_agent: StartAgent
) -> None:
    agent.process.send(signal.SIGKILL)
    agent.process.wait(10)
    assert (agent.state_dir / "agent.sock").exists()
    again = start_agent(manifests.folder, state_dir=agent.state_dir)
    assert explained(again, "web")["level"] == "agent"
