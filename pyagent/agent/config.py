"""The settings of `kubesock run`: from flags, environment, a KubeProxyConfiguration and defaults."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from pyagent.agent.bind_address import BindAddress
from pyagent.agent.config_checks import HEALTHZ_PORT, METRICS_PORT, check, check_ignored, check_together
from pyagent.agent.go_duration import parse_duration
from pyagent.agent.ignored_options import ALL_OPTIONS
from pyagent.agent.options import OPTIONS, Kind, Option, Value
from pyagent.datapath.layout import Capacities
from pyagent.model.address import Network
from pyagent.model.failures import InvalidField, UsageError

IPV6_DEFAULTS = {
    "healthz_bind_address": f"[::]:{HEALTHZ_PORT}",
    "metrics_bind_address": f"[::1]:{METRICS_PORT}",
}
"""With an IPv6 --bind-address, as kube-proxy's."""

SYNC_SECTION = {"": "iptables", "iptables": "iptables", "ipvs": "ipvs", "nftables": "nftables"}
"""Proxy mode -> the section of the file that holds its sync periods."""


class Origin(NamedTuple):
    """Where a setting came from."""

    kind: str  # default, file, flag or environment
    name: str = ""  # the flag, the field or the variable

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".rstrip()


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All settings. Durations are seconds; None means "not given"."""

    manifests: Path | None
    kubeconfig: str | None
    api_server: str | None  # HOST:PORT
    config: str
    node_name: str
    cgroup: Path | None  # None: the cgroup2 root
    bpffs: Path
    state_dir: Path
    readers_group: int | None  # its id; None: root alone
    bind_address: bytes  # 16 bytes; unspecified: the Node object's addresses count
    service_cidrs: tuple[Network, ...]
    node_port_addresses: tuple[Network, ...] | None  # None: the node's primary ones
    localhost_node_ports: bool
    remote_node_ports: str  # auto, on, off
    external_ip_cidrs: tuple[Network, ...] | None  # None: all
    outside: str  # auto, off, devices, pods:devices; separated by commas
    outside_source_ports: str  # FIRST-LAST
    host_only: bool
    opt_out: str  # off, on
    udp: str  # all, connected
    map_sizes: Capacities
    udp_grace: float
    terminate_tcp: bool
    startup_taint: str  # a key; empty: none
    healthz_bind_address: BindAddress | None  # None: off
    metrics_bind_address: BindAddress | None
    metrics_by: str  # none, service, backend
    bind_address_hard_fail: bool
    profiling: bool
    log_format: str  # auto, json, text
    verbosity: int
    observe: bool
    sync_period: float
    min_sync_period: float
    oom_score_adj: int
    proxy_mode: str
    write_config_to: Path | None
    cleanup: bool
    init_only: bool
    origins: Mapping[str, Origin]
    notes: tuple[str, ...]  # what to log once: what was accepted and ignored


def parse_run_options(given: Mapping[str, str], *, environ: Mapping[str, str], hostname: str) -> AgentConfig:
    """The settings of one agent.

    A flag wins over the file, the file over the environment, that over the default.

    Args:
        given: the flags of the command line, as `--flag` -> text; a switch without a value is `true`.
        environ: for NODE_NAME and KUBECONFIG.
        hostname: the operating system's.

    Raises:
        UsageError: a flag, a variable or a field of the file cannot be used.
    """
    unknown = given.keys() - {option.flag for option in ALL_OPTIONS}
    if unknown:
        raise UsageError(f"{min(unknown)}: no such flag; see `kubesock run --help`")
    source = _Source(given, environ, hostname)
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    for setting in dict.fromkeys(option.setting for option in OPTIONS):
        raw, origins[setting] = source.raw(setting)
        values[setting] = check(setting, raw, source.place(origins[setting]))
    check_together(values, {setting: source.place(origin) for setting, origin in origins.items()})
    check_ignored(source.fields, source.path)
    return AgentConfig(**values, origins=origins, notes=tuple(source.notes()))


class _Source:
    """Raw values by setting, and what of flags and file nobody uses."""

    def __init__(self, given: Mapping[str, str], environ: Mapping[str, str], hostname: str) -> None:
        self.given = given
        self.environ = environ
        self.hostname = hostname
        self.path = given.get("--config", "")
        self.fields: Mapping[str, Any] = {}
        self.unknown: tuple[str, ...] = ()
        self.repeated: tuple[str, ...] = ()
        if self.path:
            # The YAML library costs a megabyte that only this needs.
            from pyagent.agent.kube_proxy_file import read_kube_proxy_file

            _, self.fields, self.unknown, self.repeated = read_kube_proxy_file(self.path)
        mode = given.get("--proxy-mode", self.fields.get("mode", ""))
        self.sync_section = SYNC_SECTION.get(mode, "nftables")
        self.used = {self.field_of(option) for option in OPTIONS}

    def field_of(self, option: Option) -> str:
        """The option's field; sync periods stand in the section of the proxy mode."""
        if option.setting in ("sync_period", "min_sync_period"):
            return f"{self.sync_section}.{option.field.rpartition('.')[2]}"
        return option.field

    def raw(self, setting: str) -> tuple[Any, Origin]:
        """What was said about a setting, read but not checked."""
        options = [option for option in OPTIONS if option.setting == setting]
        for option in options:
            if option.flag in self.given:
                return _read(option, self.given[option.flag]), Origin("flag", option.flag)
        for option in options:
            if (field := self.field_of(option)) in self.fields:
                return self.fields[field], Origin("file", field)
        if variable := self._variable(setting):
            return self.environ[variable], Origin("environment", variable)
        return self._default(options[0]), Origin("default")

    def place(self, origin: Origin) -> str:
        """How an error names it."""
        if origin.kind == "file":
            return f"--config {self.path}: {origin.name}"
        return origin.name if origin.kind == "flag" else str(origin)

    def _variable(self, setting: str) -> str:
        # In a pod the service account comes first; without one, whoever loads credentials still finds this.
        elsewhere = self.environ.get("KUBERNETES_SERVICE_HOST") or "--manifests" in self.given
        variable = {"node_name": "NODE_NAME", "kubeconfig": "" if elsewhere else "KUBECONFIG"}.get(
            setting, ""
        )
        return variable if self.environ.get(variable) else ""

    def _default(self, option: Option) -> Any:
        if option.setting == "node_name":
            return self.hostname
        if option.setting == "external_ip_cidrs":
            return None
        if ":" in self.given.get("--bind-address", self.fields.get("bindAddress", "")):
            return IPV6_DEFAULTS.get(option.setting, _read(option, option.default))
        return _read(option, option.default)

    def notes(self) -> Iterator[str]:
        flags = [o.flag for o in ALL_OPTIONS if o.kind is Kind.IGNORED and o.flag in self.given]
        if flags:
            yield f"accepted for kube-proxy's sake, without effect: {', '.join(flags)}"
        unused = [name for name in self.fields if name not in self.used | {"apiVersion", "kind"}]
        parts = (
            ("ignored", unused),
            ("unknown", self.unknown),
            ("given twice, the last counts", self.repeated),
        )
        if said := "; ".join(f"{what}: {', '.join(names)}" for what, names in parts if names):
            yield f"--config {self.path}: {said}"


def _read(option: Option, text: str) -> Any:
    """A flag's text as its type.

    Raises:
        UsageError: it is not of that type.
    """
    try:
        match option.value:
            case Value.BOOL:
                return _bool(text)
            case Value.INT:
                return _int(text)
            case Value.DURATION:
                return parse_duration(text)
            case Value.LIST:
                return [part.strip() for part in text.split(",")] if text.strip() else []
    except InvalidField as error:
        raise UsageError(f"{option.flag}: {error}") from None
    return text


def _bool(text: str) -> bool:
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise InvalidField("want true or false", text)


def _int(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,9}", text):
        raise InvalidField("want a whole number", text)
    return int(text)
