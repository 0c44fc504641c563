"""Settings parsed for tests, and a table of every flag with a value that it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pyagent.agent.config import AgentConfig, parse_run_options
from pyagent.agent.effective_config import described
from pyagent.agent.options import API_VERSION, KIND, OPTIONS, Option
from pyagent.model.failures import UsageError

HEADER = {"apiVersion": API_VERSION, "kind": KIND}


def parse(*arguments: str, environ: dict[str, str] | None = None, hostname: str = "node-1") -> AgentConfig:
    """Arguments as `--flag=value`, or `--switch`."""
    given = {flag: value if eq else "true" for flag, eq, value in (a.partition("=") for a in arguments)}
    return parse_run_options(given, environ=environ or {}, hostname=hostname)


def refusal(*arguments: str, **more: Any) -> str:
    """The error's text; it is one line."""
    with pytest.raises(UsageError) as raised:
        parse(*arguments, **more)
    text = str(raised.value)
    assert "\n" not in text
    return text


def from_fields(file: Path, fields: dict[str, Any], *arguments: str) -> AgentConfig:
    file.write_text(yaml.safe_dump(HEADER | fields))
    return parse(f"--config={file}", *arguments)


def shown(config: AgentConfig) -> dict[str, str]:
    return {row["setting"]: row["value"] for row in described(config)}


def option_of(argument: str) -> Option:
    return next(option for option in OPTIONS if option.flag == argument.partition("=")[0])


FLAGS = [
    ("--manifests=/srv/objects", "manifests", "/srv/objects"),
    ("--kubeconfig=/etc/kube.conf", "kubeconfig", "/etc/kube.conf"),
    ("--api-server=192.0.2.1:6443", "api-server", "192.0.2.1:6443"),
    ("--api-server=[2001:db8::1]:6443", "api-server", "[2001:db8::1]:6443"),
    ("--master=https://api.example:6443/", "api-server", "api.example:6443"),
    ("--master=https://api.example", "api-server", "api.example:443"),
    ("--master=http://192.0.2.1", "api-server", "192.0.2.1:80"),
    ("--node-name= Worker.Example ", "node-name", "worker.example"),
    ("--hostname-override=w2", "node-name", "w2"),
    ("--cgroup=/sys/fs/cgroup/x", "cgroup", "/sys/fs/cgroup/x"),
    ("--bpffs=/run/bpf", "bpffs", "/run/bpf"),
    ("--state-dir=/run/state", "state-dir", "/run/state"),
    ("--readers-group=daemon", "readers-group", "1"),
    ("--bind-address=::", "bind-address", "::"),
    ("--service-cidr=10.96.0.0/12, fd00::/108", "service-cidr", "10.96.0.0/12,fd00::/108"),
    ("--nodeport-addresses=10.0.0.0/8,127.0.0.0/8", "nodeport-addresses", "10.0.0.0/8,127.0.0.0/8"),
    ("--nodeport-addresses=primary", "nodeport-addresses", "primary"),
    ("--nodeport-addresses=", "nodeport-addresses", "primary"),
    ("--iptables-localhost-nodeports=false", "iptables-localhost-nodeports", "false"),
    ("--remote-node-ports=off", "remote-node-ports", "off"),
    ("--external-ip-cidrs=198.51.100.0/24", "external-ip-cidrs", "198.51.100.0/24"),
    ("--external-ip-cidrs=", "external-ip-cidrs", ""),
    ("--outside=eth0, eth1.5", "outside", "eth0,eth1.5"),
    ("--outside=auto,pods:cni0", "outside", "auto,pods:cni0"),
    ("--outside-source-ports=62000-62999", "outside-source-ports", "62000-62999"),
    ("--host-only", "host-only", "true"),
    ("--opt-out=on", "opt-out", "on"),
    ("--udp=connected", "udp", "connected"),
    ("--udp-grace=1h5m", "udp-grace", "1h5m0s"),
    ("--map-sizes=backends=64", "map-sizes", "backends=64"),
    ("--udp-grace=0", "udp-grace", "0s"),
    ("--terminate-tcp", "terminate-tcp", "true"),
    ("--terminate-tcp=F", "terminate-tcp", "false"),
    ("--startup-taint=kubesock.io/agent-not-ready", "startup-taint", "kubesock.io/agent-not-ready"),
    ("--healthz-bind-address=[::]:80", "healthz-bind-address", "[::]:80"),
    ("--healthz-bind-address=10.0.0.1", "healthz-bind-address", "10.0.0.1:10256"),
    ("--healthz-bind-address=", "healthz-bind-address", "0"),
    ("--metrics-bind-address=0", "metrics-bind-address", "0"),
    ("--metrics-bind-address=0.0.0.0", "metrics-bind-address", "0.0.0.0:10249"),
    ("--observe", "observe", "true"),
    ("--metrics-by=backend", "metrics-by", "backend"),
    ("--bind-address-hard-fail=true", "bind-address-hard-fail", "true"),
    ("--profiling", "profiling", "true"),
    ("--log-format=text", "log-format", "text"),
    ("--logging-format=json", "log-format", "json"),
    ("--v=4", "v", "4"),
    ("--iptables-sync-period=1m", "iptables-sync-period", "1m0s"),
    ("--iptables-min-sync-period=1s", "iptables-min-sync-period", "1s"),
    ("--oom-score-adj=-1000", "oom-score-adj", "-1000"),
    ("--proxy-mode=nftables", "proxy-mode", "nftables"),
    ("--write-config-to=/tmp/x", "write-config-to", "/tmp/x"),
    ("--cleanup", "cleanup", "true"),
    ("--init-only", "init-only", "true"),
]
