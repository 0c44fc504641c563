"""What list verbs really print, against the schema that is shipped."""

from __future__ import annotations

import copy
import gc
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

import pyagent.view
from pyagent.cli.main import main
from pyagent.demo.agent_process import kubesock, run_verb
from pyagent.kernel.connections import PIN
from pyagent.kernel.map_set import MapSet
from tests.datapath.ground import Manifests, SmallCluster, StartAgent, ask_tcp, endpoint_slice, service
from tests.datapath.ground.cluster import InClient
from tests.datapath.ground.listed import pin_two_services
from tests.datapath.ground.waiting import wait_for

pytestmark = pytest.mark.kernel

SCHEMA = json.loads(Path(pyagent.view.__path__[0], "schema.json").read_text())
DUMPED = ("frontends", "sets", "slots", "backends", "names", "chosen", "outcomes", "config", "meta")


def strict() -> Draft202012Validator:
    """The schema without the freedom that readers must allow: here a field that it lacks is a fault."""
    schema = copy.deepcopy(SCHEMA)
    for kind in schema["$defs"].values():
        if kind.get("required") and kind["title"] != "Change":
            kind["additionalProperties"] = False
    return Draft202012Validator(schema)


def check(document: Any, kind: str) -> list[dict[str, Any]]:
    assert document["kind"] == kind
    errors = [f"{error.json_path}: {error.message}" for error in strict().iter_errors(document)]
    named = Draft202012Validator({**strict().schema, "anyOf": [{"$ref": f"#/$defs/{kind}"}]})
    errors += [f"{error.json_path}: {error.message}" for error in named.iter_errors(document)]
    assert not errors, "\n".join(errors[:5])
    return list(document["items"])


Print = Callable[..., str]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Iterator[Print]:
    """What a verb prints, in this process."""

    def run(*arguments: str) -> str:
        main(arguments)
        return capsys.readouterr().out

    yield run
    gc.enable()  # a listing switches it off for its short life


@pytest.fixture
def maps(bpffs: Path) -> Iterator[MapSet]:
    made_set = pin_two_services(bpffs)
    yield made_set
    made_set.close()


@pytest.mark.parametrize(
    ("verb", "kind"),
    [
        (("services",), "ServiceList"),
        (("backends",), "BackendList"),
        (("maps",), "MapList"),
        *((("maps", name), "MapEntryList") for name in DUMPED),
        (("maps", "--raw", "names"), "MapEntryList"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_a_list_is_as_the_schema_says(
    printed: Print, bpffs: Path, maps: MapSet, verb: tuple[str, ...], kind: str
) -> None:
    rows = check(json.loads(printed(*verb, f"--bpffs={bpffs}", "-o", "json")), kind)
    assert rows
    assert check(yaml.safe_load(printed(*verb, f"--bpffs={bpffs}", "-o", "yaml")), kind)


def test_the_schema_refuses_what_it_should(printed: Print, bpffs: Path, maps: MapSet) -> None:
    text = printed("services", f"--bpffs={bpffs}", "-o", "json")
    for change in ({"ready": "2"}, {"family": "IPv5"}, {"surprise": 1}, {"ready": None}):
        document = json.loads(text)
        document["items"][0].update(change)
        with pytest.raises(AssertionError):
            check(document, "ServiceList")


def test_a_watch_prints_changes(bpffs: Path, maps: MapSet) -> None:
    watching = subprocess.Popen(
        [*kubesock("services", f"--bpffs={bpffs}", "-w", "-o", "json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert watching.stdout is not None
    try:
        lines = [json.loads(watching.stdout.readline()) for _ in range(2)]
    finally:
        watching.send_signal(signal.SIGINT)
        watching.wait(10)
        watching.stdout.close()
    for line in lines:
        assert not list(Draft202012Validator(SCHEMA).iter_errors(line))
        assert line["type"] == "ADDED"


def test_lists_of_a_real_node_are_as_the_schema_says(
    cluster: SmallCluster, in_client: InClient, manifests: Manifests, start_agent: StartAgent
) -> None:
    port = (("http", 80, "TCP"),)
    sticky = service("web", ["10.96.0.51"], port, sessionAffinity="ClientIP")
    target = (("http", 8080, "TCP"),)
    manifests.write("all", [sticky, endpoint_slice("web", [cluster.server("a").ipv4], target)])
    agent = start_agent(manifests.folder)
    assert in_client(lambda: ask_tcp("10.96.0.51", 80)).pod == "a"
    for verb, kind in (
        ("services", "ServiceList"),
        ("backends", "BackendList"),
        ("affinity", "AffinityList"),
    ):
        code, text, _ = agent.verb(verb, "-o", "json")
        assert code == 0
        assert check(json.loads(text), kind), verb
    wait_for((agent.bpffs / "current" / PIN).exists, bool, "the connection table")
    code, text, _ = agent.verb("connections", "-o", "json")
    assert code == 0
    check(json.loads(text), "ConnectionList")
    _, text, _ = run_verb("check", f"--bpffs={agent.bpffs}", f"--cgroup={agent.cgroup}", "-o", "json")
    assert check(json.loads(text), "CheckList")
