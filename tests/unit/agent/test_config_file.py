"""A KubeProxyConfiguration: what is taken, what is refused, and what is in force in the end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from pyagent.agent.effective_config import configz, described, write_config
from pyagent.agent.ignored_options import FILE_FIELDS
from pyagent.agent.options import API_VERSION, KIND, OPTIONS, Value
from pyagent.model.address import format_address
from pyagent.model.failures import UsageError
from tests.unit.agent.settings import FLAGS, HEADER, from_fields, option_of, parse, refusal

KUBEADM = """\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
kind: KubeProxyConfiguration
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
metricsBindAddress: ""
mode: ""
nftables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: ""
  rootHnsEndpointName: ""
  sourceVip: ""
"""
"""What kubeadm writes into the ConfigMap kube-system/kube-proxy."""


def test_the_file_that_kubeadm_writes_is_read_with_one_note(file: Path) -> None:
    file.write_text(KUBEADM)
    config = parse(f"--config={file}", "--hostname-override=cp-1")
    assert config.kubeconfig == "/var/lib/kube-proxy/kubeconfig.conf"
    changed = {row["setting"]: row["origin"] for row in described(config) if row["origin"] != "default"}
    assert changed == {
        "kubeconfig": "file",
        "bind-address": "file",
        "config": "flag",
        "node-name": "flag",
    }
    assert config.notes == (f"--config {file}: ignored: clusterCIDR",)


FIELDS: list[tuple[str, Any, str, str]] = [
    ("clientConnection.kubeconfig", "/k", "kubeconfig", "/k"),
    ("hostnameOverride", "W1", "node-name", "w1"),
    ("bindAddress", "10.0.0.1", "bind-address", "10.0.0.1"),
    ("nodePortAddresses", ["10.0.0.0/8", "fd00::/64"], "nodeport-addresses", "10.0.0.0/8,fd00::/64"),
    ("iptables.localhostNodePorts", False, "iptables-localhost-nodeports", "false"),
    ("healthzBindAddress", "10.0.0.1:1", "healthz-bind-address", "10.0.0.1:1"),
    ("metricsBindAddress", "[::1]", "metrics-bind-address", "[::1]:10249"),
    ("bindAddressHardFail", True, "bind-address-hard-fail", "true"),
    ("enableProfiling", True, "profiling", "true"),
    ("logging.format", "json", "log-format", "json"),
    ("logging.verbosity", 5, "v", "5"),
    ("iptables.syncPeriod", "1h5m", "iptables-sync-period", "1h5m0s"),
    ("iptables.minSyncPeriod", "1.5s", "iptables-min-sync-period", "1.5s"),
    ("oomScoreAdj", 0, "oom-score-adj", "0"),
    ("mode", "ipvs", "proxy-mode", "ipvs"),
]


def nested(name: str, value: Any) -> dict[str, Any]:
    for part in reversed(name.split(".")):
        value = {part: value}
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize(("field", "value", "setting", "text"), FIELDS)
def test_a_field_sets_its_setting_and_is_its_origin(
    file: Path, field: str, value: Any, setting: str, text: str
) -> None:
    config = from_fields(file, nested(field, value))
    (row,) = [row for row in described(config) if row["setting"] == setting]
    assert row == {"setting": setting, "value": text, "origin": "file", "from": field}
    assert config.notes == ()


def test_each_field_of_the_table_is_tried_above() -> None:
    assert {option.field for option in OPTIONS if option.field} == {field for field, _, _, _ in FIELDS}


@pytest.mark.parametrize(
    ("field", "value", "_setting", "_text"),
    [row for row in FIELDS if row[0] != "iptables.localhostNodePorts"],
)
def test_a_flag_wins_over_the_file(file: Path, field: str, value: Any, _setting: str, _text: str) -> None:
    option = next(option for option in OPTIONS if option.field == field)
    argument = next(a for a, _, _ in FLAGS if option_of(a) is option)
    config = from_fields(file, nested(field, value), argument)
    assert config.origins[option.setting].kind == "flag"
    assert getattr(config, option.setting) == getattr(parse(argument), option.setting)


@pytest.mark.parametrize(
    ("mode", "section"),
    [("", "iptables"), ("iptables", "iptables"), ("ipvs", "ipvs"), ("nftables", "nftables")],
)
def test_the_sync_period_is_that_of_the_proxy_mode(file: Path, mode: str, section: str) -> None:
    periods = {"iptables": "11s", "ipvs": "12s", "nftables": "13s"}
    fields = {name: {"syncPeriod": period} for name, period in periods.items()}
    config = from_fields(file, {"mode": mode, **fields})
    assert f"{config.sync_period:g}s" == periods[section]
    ignored = ", ".join(f"{name}.syncPeriod" for name in sorted(periods) if name != section)
    assert config.notes == (f"--config {file}: ignored: {ignored}",)


def test_an_ipv6_bind_address_changes_where_servers_listen(file: Path) -> None:
    for config in (parse("--bind-address=fd00::1"), from_fields(file, {"bindAddress": "fd00::1"})):
        assert format_address(config.bind_address) == "fd00::1"
        assert (str(config.healthz_bind_address), str(config.metrics_bind_address)) == (
            "[::]:10256",
            "[::1]:10249",
        )


def test_unknown_and_repeated_and_ignored_fields_are_named_in_one_note(file: Path) -> None:
    file.write_text(
        f"apiVersion: {API_VERSION}\nkind: {KIND}\nmode: iptables\nmode: nftables\nfoo: 1\n"
        "iptables: {bar: 2, masqueradeBit: 14, masqueradeAll: true}\nconntrack: {min: 5}\n"
    )
    config = parse(f"--config={file}")
    assert config.proxy_mode == "nftables"
    assert config.notes == (
        f"--config {file}: ignored: iptables.masqueradeBit, iptables.masqueradeAll, conntrack.min; "
        "unknown: foo, iptables.bar; given twice, the last counts: mode",
    )


def test_json_is_read_too(file: Path) -> None:
    file.write_bytes(msgspec.json.encode(HEADER | {"hostnameOverride": "j"}))
    assert parse(f"--config={file}").node_name == "j"


WRONG_DOCUMENTS = [
    ("", "holds no object; want a KubeProxyConfiguration"),
    ("- a\n", "holds no object; want a KubeProxyConfiguration"),
    ("kind: KubeProxyConfiguration\n", f"apiVersion is ''; want {API_VERSION} KubeProxyConfiguration"),
    (f"apiVersion: {API_VERSION}\nkind: KubeletConfiguration\n", "kind is 'KubeletConfiguration'; want "),
    ("apiVersion: kubeproxy.config.k8s.io/v1beta9\nkind: KubeProxyConfiguration\n", "apiVersion is "),
    ("apiVersion: {}\nkind: KubeProxyConfiguration\n", "apiVersion is a dict; want "),
]


@pytest.mark.parametrize(("text", "cause"), WRONG_DOCUMENTS)
def test_a_document_of_another_kind_is_refused(file: Path, text: str, cause: str) -> None:
    file.write_text(text)
    assert refusal(f"--config={file}").startswith(f"--config {file}: {cause}")


WRONG_TEXT = [
    (b"a: [1,\nb: 2", " line 2: not one YAML or JSON document: "),
    (b"a: 1\n---\nb: 2\n", " line 2: not one YAML or JSON document: "),
    (b"\x00\x01", ": not one YAML or JSON document: "),
    (b"a: !!python/object:os.system x", " line 1: not one YAML or JSON document: "),
    (b"{" * 20_000, ": not one YAML or JSON document: "),
    (b"a: " + b"x" * (1 << 20), ": larger than 1 MiB; name a KubeProxyConfiguration"),
]


@pytest.mark.parametrize(("text", "cause"), WRONG_TEXT, ids=[f"{text[:8]!r}" for text, _ in WRONG_TEXT])
def test_a_file_that_is_no_document_is_refused(file: Path, text: bytes, cause: str) -> None:
    file.write_bytes(text)
    assert refusal(f"--config={file}").startswith(f"--config {file}{cause}")


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    assert refusal(f"--config={tmp_path}") == f"--config {tmp_path}: Is a directory; name a readable file"


WRONG_VALUE = {
    Value.TEXT: 5,
    Value.BOOL: "true",
    Value.INT: "14",
    Value.FLOAT: "x",
    Value.DURATION: 30,
    Value.LIST: "10.0.0.0/8",
    Value.SWITCHES: {"A": "yes"},
    Value.MAPPING: [],
}


@pytest.mark.parametrize(
    "field", [f for f, v in FILE_FIELDS.items() if v is not Value.ANY and f not in ("apiVersion", "kind")]
)
def test_a_field_of_the_wrong_type_is_refused_by_its_path(file: Path, field: str) -> None:
    wanted = FILE_FIELDS[field]
    file.write_text(yaml.safe_dump(HEADER | nested(field, WRONG_VALUE[wanted])))
    assert refusal(f"--config={file}").startswith(f"--config {file}: {field}: want {wanted.value}, got ")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"iptables": 5}, "iptables: want a mapping, got '5'"),
        ({"nodePortAddresses": [5]}, "nodePortAddresses: want a list, got a list"),
        ({"nodePortAddresses": ["primary", "10.0.0.0/8"]}, "nodePortAddresses: want CIDRs, or primary alone"),
        ({"bindAddress": "x"}, "bindAddress: not an IP address: 'x'"),
        ({"healthzBindAddress": "x:1"}, "healthzBindAddress: want IP:PORT, or 0 to turn it off: 'x:1'"),
        ({"iptables": {"syncPeriod": "-1s"}}, "iptables.syncPeriod: want more than 0s: '-1s'"),
        ({"iptables": {"syncPeriod": "1x"}}, "iptables.syncPeriod: not a duration"),
        (
            {"iptables": {"syncPeriod": "1s", "minSyncPeriod": "2s"}},
            "iptables.minSyncPeriod: 2s is longer than the sync period",
        ),
        ({"oomScoreAdj": 1001}, "oomScoreAdj: want -1000 to 1000: '1001'"),
        ({"mode": "userspace"}, "mode: want iptables or ipvs or nftables or kubesock, got 'userspace'"),
        ({"logging": {"format": "xml"}}, "logging.format: want "),
        ({"clusterCIDR": "10.0.0.0/8,10.1.0.0/16"}, "clusterCIDR: want a CIDR, or one of each family"),
        ({"clusterCIDR": "pods"}, "clusterCIDR: want a CIDR, or one of each family"),
        ({"iptables": {"masqueradeBit": 32}}, "iptables.masqueradeBit: want 0 to 31, got 32"),
        ({"nftables": {"masqueradeBit": -1}}, "nftables.masqueradeBit: want 0 to 31, got -1"),
        ({"conntrack": {"min": -1}}, "conntrack.min: want 0 or more, got -1"),
        ({"conntrack": {"udpTimeout": "-1s"}}, "conntrack.udpTimeout: want 0s or more"),
        ({"configSyncPeriod": "-1s"}, "configSyncPeriod: want more than 0s"),
        (
            {"detectLocalMode": "BridgeInterface"},
            "detectLocal.bridgeInterface: is empty, but detectLocalMode",
        ),
        ({"detectLocalMode": "InterfaceNamePrefix"}, "detectLocal.interfaceNamePrefix: is empty, but "),
    ],
)
def test_a_value_that_kube_proxy_refuses_is_refused(file: Path, fields: dict[str, Any], text: str) -> None:
    file.write_text(yaml.safe_dump(HEADER | fields))
    assert refusal(f"--config={file}").startswith(f"--config {file}: {text}")


@pytest.mark.parametrize("cidrs", ["10.0.0.0/8", "fd00::/64", "10.0.0.0/8,fd00::/64"])
def test_one_cluster_cidr_of_each_family_is_fine(file: Path, cidrs: str) -> None:
    assert from_fields(file, {"clusterCIDR": cidrs}).notes == (f"--config {file}: ignored: clusterCIDR",)


def test_a_file_of_aliases_that_multiply_does_no_harm(file: Path) -> None:
    bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 20)
    )
    head = f"apiVersion: {API_VERSION}\nkind: {KIND}\n"
    file.write_text(f"{bomb}{head}winkernel: {{x: *a19}}\n")
    assert "unknown: a0, a1" in parse(f"--config={file}").notes[0]
    file.write_text(f"{bomb}{head}mode: *a19\n")
    assert refusal(f"--config={file}") == f"--config {file}: mode: want a text, got a list"


def test_configz_is_a_kube_proxy_configuration() -> None:
    assert configz(parse("--proxy-mode=nftables", "--iptables-sync-period=1m")) == {
        **HEADER,
        "clientConnection": {"kubeconfig": ""},
        "hostnameOverride": "node-1",
        "bindAddress": "0.0.0.0",
        "nodePortAddresses": ["primary"],
        "iptables": {"localhostNodePorts": True},
        "nftables": {"syncPeriod": "1m0s", "minSyncPeriod": "0s"},
        "healthzBindAddress": "0.0.0.0:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "bindAddressHardFail": False,
        "enableProfiling": False,
        "logging": {"format": "", "verbosity": 0},
        "oomScoreAdj": -999,
        "mode": "nftables",
    }


def test_a_written_file_gives_the_same_settings_again(tmp_path: Path) -> None:
    arguments = {option_of(a).setting: a for a, _, _ in FLAGS if option_of(a).field}
    path = tmp_path / "written.conf"
    config = parse(*arguments.values(), f"--write-config-to={path}")
    write_config(config)
    again = parse(f"--config={path}")
    assert again.notes == ()
    for setting in arguments:
        assert getattr(again, setting) == getattr(config, setting), setting
        assert again.origins[setting].kind == "file"


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--write-config-to .*: Is a directory; name a file"):
        write_config(parse(f"--write-config-to={tmp_path}"))


def test_a_link_in_the_place_of_the_written_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "link").symlink_to("precious")
    with pytest.raises(UsageError, match="symbolic link"):
        write_config(parse(f"--write-config-to={tmp_path / 'link'}"))
    assert (tmp_path / "precious").read_text() == "kept"


def test_settings_without_a_file_load_neither_yaml_nor_tls() -> None:
    code = (
        "import sys; from pyagent.agent.config import parse_run_options; "
        "parse_run_options({}, environ={}, hostname='n'); "
        "print([m for m in ('yaml', 'ssl', 'http.client', 'click') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
