"""Settings of `kubesock run`: each flag and field, what wins, and what is refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pyagent.agent.config import AgentConfig
from pyagent.agent.effective_config import described
from pyagent.agent.ignored_options import ALL_OPTIONS, IGNORED
from pyagent.agent.options import OPTIONS, Kind, Value
from pyagent.model.failures import UsageError
from tests.unit.agent.settings import FLAGS, HEADER, parse, refusal, shown


def test_flags_are_unique_and_settings_are_those_of_the_config() -> None:
    flags = [flag for option in ALL_OPTIONS for flag in option.flags]
    assert len(flags) == len(set(flags))
    fields = {field.name for field in msgspec.structs.fields(AgentConfig)} - {"origins", "notes"}
    assert {option.setting for option in OPTIONS} == fields
    assert all(option.setting == "" and option.kind is Kind.IGNORED for option in IGNORED)


def test_every_option_has_a_help_text() -> None:
    assert all(option.help.endswith(".") for option in ALL_OPTIONS)


KUBE_PROXY_FLAGS = (
    "config write-config-to cleanup init-only feature-gates kubeconfig master kube-api-content-type "
    "kube-api-burst kube-api-qps hostname-override bind-address healthz-bind-address healthz-port "
    "metrics-bind-address metrics-port bind-address-hard-fail profiling show-hidden-metrics-for-version "
    "proxy-mode iptables-localhost-nodeports iptables-sync-period iptables-min-sync-period "
    "detect-local-mode pod-bridge-interface pod-interface-name-prefix cluster-cidr nodeport-addresses "
    "oom-score-adj conntrack-max-per-core conntrack-min conntrack-tcp-timeout-established "
    "conntrack-tcp-timeout-close-wait conntrack-tcp-be-liberal conntrack-udp-timeout "
    "conntrack-udp-timeout-stream config-sync-period logging-format log-flush-frequency v vmodule"
)


@pytest.mark.parametrize("flag", KUBE_PROXY_FLAGS.split())
def test_kube_proxys_flags_are_accepted_under_their_own_names(flag: str) -> None:
    assert f"--{flag}" in {option.flag for option in ALL_OPTIONS if option.kind is not Kind.OURS}


def test_without_flags_the_settings_are_the_documented_ones() -> None:
    config = parse()
    assert shown(config) == {
        "manifests": "",
        "kubeconfig": "",
        "api-server": "",
        "config": "",
        "node-name": "node-1",
        "cgroup": "",
        "bpffs": "/sys/fs/bpf/kubesock",
        "state-dir": "/var/lib/kubesock",
        "readers-group": "",
        "bind-address": "0.0.0.0",
        "service-cidr": "",
        "nodeport-addresses": "primary",
        "iptables-localhost-nodeports": "true",
        "remote-node-ports": "auto",
        "external-ip-cidrs": "0.0.0.0/0,::/0",
        "outside": "auto",
        "outside-source-ports": "61000-65535",
        "host-only": "false",
        "opt-out": "off",
        "udp": "all",
        "map-sizes": "",
        "udp-grace": "10s",
        "terminate-tcp": "false",
        "startup-taint": "",
        "healthz-bind-address": "0.0.0.0:10256",
        "metrics-bind-address": "127.0.0.1:10249",
        "observe": "false",
        "metrics-by": "service",
        "bind-address-hard-fail": "false",
        "profiling": "false",
        "log-format": "auto",
        "v": "0",
        "iptables-sync-period": "30s",
        "iptables-min-sync-period": "0s",
        "oom-score-adj": "-999",
        "proxy-mode": "",
        "write-config-to": "",
        "cleanup": "false",
        "init-only": "false",
    }
    assert {row["origin"] for row in described(config)} == {"default"}
    assert config.notes == ()


@pytest.mark.parametrize(("argument", "setting", "text"), FLAGS)
def test_a_flag_sets_its_setting_and_is_its_origin(argument: str, setting: str, text: str) -> None:
    config = parse(argument)
    (row,) = [row for row in described(config) if row["setting"] == setting]
    assert row == {
        "setting": setting,
        "value": text,
        "origin": "flag",
        "from": argument.partition("=")[0],
    }
    assert {r["origin"] for r in described(config) if r["setting"] != setting} == {"default"}


def test_each_flag_of_the_table_is_tried_above() -> None:
    tried = {argument.partition("=")[0] for argument, _, _ in FLAGS}
    assert {option.flag for option in OPTIONS} - tried == {"--config"}


WRONG_FLAGS = [
    ("--api-server=192.0.2.1", "--api-server: want HOST:PORT, for example 192.0.2.10:6443: '192.0.2.1'"),
    ("--master=ftp://x:1", "--master: want HOST:PORT or https://HOST:PORT: 'ftp://x:1'"),
    ("--node-name=a_b", "--node-name: not the name of a node; give it with --node-name: 'a_b'"),
    ("--hostname-override=/", "--hostname-override: not the name of a node; give it with --node-name: '/'"),
    ("--bpffs=bpf", "--bpffs: want an absolute path: 'bpf'"),
    ("--bind-address=localhost", "--bind-address: not an IP address: 'localhost'"),
    ("--service-cidr=10.96.0.0", "--service-cidr: not a CIDR (want ADDRESS/BITS): '10.96.0.0'"),
    ("--service-cidr=10.96.0.0/33", "--service-cidr: prefix length out of range: '10.96.0.0/33'"),
    ("--nodeport-addresses=primary,10.0.0.0/8", "--nodeport-addresses: want CIDRs, or primary alone: "),
    ("--nodeport-addresses=eth0", "--nodeport-addresses: not a CIDR (want ADDRESS/BITS): 'eth0'"),
    ("--iptables-localhost-nodeports=yes", "--iptables-localhost-nodeports: want true or false: 'yes'"),
    ("--remote-node-ports=maybe", "--remote-node-ports: want auto or on or off, got 'maybe'"),
    ("--opt-out=maybe", "--opt-out: want off or on, got 'maybe'"),
    ("--host-only=2", "--host-only: want true or false: '2'"),
    ("--external-ip-cidrs=x", "--external-ip-cidrs: not a CIDR (want ADDRESS/BITS): 'x'"),
    ("--outside=off,eth0", "--outside: off stands alone: 'off,eth0'"),
    ("--outside=", "--outside: nothing; want off, auto, NAME or pods:NAME: ''"),
    (
        "--outside=0123456789abcdef",
        "--outside: no name of a network device; want off, auto, NAME or pods:NAME",
    ),
    ("--outside=pods:", "--outside: no name of a network device; want off, auto, NAME or pods:NAME: 'pods:'"),
    ("--outside-source-ports=61000", "--outside-source-ports: want FIRST-LAST from 1 to 65535"),
    ("--outside-source-ports=9-8", "--outside-source-ports: want FIRST-LAST from 1 to 65535"),
    ("--udp=none", "--udp: want all or connected, got 'none'"),
    ("--map-sizes=backends", "--map-sizes: want NAME=N with N from 16 to 99999999: 'backends'"),
    (
        "--map-sizes=event-bytes=5000",
        "--map-sizes: the size of a ring buffer is a power of two from 4096: '5000'",
    ),
    ("--udp-grace=10", "--udp-grace: not a duration, write it like 30s, 1h5m or 250ms: '10'"),
    ("--udp-grace=-1s", "--udp-grace: want 0s or more: '-1s'"),
    ("--healthz-bind-address=0.0.0.0:0", "--healthz-bind-address: port must be 1 to 65535: '0.0.0.0:0'"),
    ("--metrics-bind-address=host:1", "--metrics-bind-address: want IP:PORT, or 0 to turn it off: 'host:1'"),
    ("--log-format=xml", "--log-format: want auto or json or text, got 'xml'"),
    ("--v=x", "--v: want a whole number: 'x'"),
    ("--v=-1", "--v: want 0 to 99: '-1'"),
    ("--iptables-sync-period=0s", "--iptables-sync-period: want more than 0s: '0s'"),
    ("--iptables-min-sync-period=-1s", "--iptables-min-sync-period: want 0s or more: '-1s'"),
    (
        "--iptables-min-sync-period=31s",
        "--iptables-min-sync-period: 31s is longer than the sync period (default, 30s); make it shorter",
    ),
    ("--oom-score-adj=-1001", "--oom-score-adj: want -1000 to 1000: '-1001'"),
    ("--oom-score-adj=1001", "--oom-score-adj: want -1000 to 1000: '1001'"),
    (
        "--proxy-mode=userspace",
        "--proxy-mode: want iptables or ipvs or nftables or kubesock, got 'userspace'",
    ),
    ("--config=/nonexistent", "--config /nonexistent: No such file or directory; name a readable file"),
    ("--masquerade-none", "--masquerade-none: no such flag; see `kubesock run --help`"),
]


@pytest.mark.parametrize(("argument", "text"), WRONG_FLAGS)
def test_a_wrong_flag_is_one_line_with_flag_cause_and_remedy(argument: str, text: str) -> None:
    assert refusal(argument).startswith(text)


def test_manifests_and_kubeconfig_exclude_each_other() -> None:
    assert refusal("--manifests=/m", "--kubeconfig=/k") == (
        "--manifests and --kubeconfig: give one of them, not both"
    )


@given(st.sampled_from([o.flag for o in OPTIONS if o.value is not Value.TEXT]), st.text())
def test_any_text_of_a_typed_flag_is_taken_or_refused_in_one_line(flag: str, text: str) -> None:
    try:
        parse(f"{flag}={text}")
        return
    except UsageError as error:
        line = str(error)
    assert line.startswith(flag)
    assert line.isprintable()


def test_ignored_flags_are_named_in_one_note() -> None:
    config = parse("--cluster-cidr=10.0.0.0/8", "--feature-gates=A=true", "--conntrack-min=5")
    assert config.notes == (
        "accepted for kube-proxy's sake, without effect: --feature-gates, --cluster-cidr, --conntrack-min",
    )


def test_the_node_name_comes_from_flag_file_environment_or_host(file: Path) -> None:
    environ = {"NODE_NAME": "from-environment"}
    assert parse(environ=environ, hostname="Host").node_name == "from-environment"
    assert str(parse(environ=environ).origins["node_name"]) == "environment NODE_NAME"
    assert parse(hostname="Host.Example").node_name == "host.example"
    assert parse("--hostname-override=flag", environ=environ).node_name == "flag"
    assert parse("--hostname-override=b", "--node-name=a").node_name == "a"
    file.write_text(yaml.safe_dump(HEADER | {"hostnameOverride": "from-file"}))
    assert parse(f"--config={file}", environ=environ).node_name == "from-file"
    assert refusal(environ={"NODE_NAME": "a b"}).startswith("environment NODE_NAME: not the name of a node")


@pytest.mark.parametrize(
    ("arguments", "environ", "kubeconfig"),
    [
        ([], {"KUBECONFIG": "/k"}, "/k"),
        ([], {"KUBECONFIG": "/k", "KUBERNETES_SERVICE_HOST": "10.96.0.1"}, None),
        (["--manifests=/m"], {"KUBECONFIG": "/k"}, None),
        (["--kubeconfig=/f"], {"KUBECONFIG": "/k"}, "/f"),
        ([], {}, None),
    ],
)
def test_kubeconfig_of_the_environment_counts_outside_of_pods(
    arguments: list[str], environ: dict[str, str], kubeconfig: str | None
) -> None:
    assert parse(*arguments, environ=environ).kubeconfig == kubeconfig


def test_a_group_of_readers_is_a_name_or_a_number() -> None:
    assert parse("--readers-group=12345").readers_group == 12345
    assert parse().readers_group is None
    assert "no such group here" in refusal("--readers-group=nobody-has-this-one")
