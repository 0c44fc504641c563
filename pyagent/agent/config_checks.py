"""What each setting may be, as kube-proxy checks it (pkg/proxy/apis/config/validation) and for our own."""

from __future__ import annotations

import grp
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pyagent.agent.bind_address import BindAddress, parse_bind_address
from pyagent.agent.go_duration import format_duration
from pyagent.agent.options import OPTIONS
from pyagent.datapath.layout import Capacities
from pyagent.desired.endpoints import MAX_PORT
from pyagent.desired.outside import read_outside
from pyagent.model.address import Network, parse_address, parse_network
from pyagent.model.failures import InvalidField, UsageError

PRIMARY = "primary"
HEALTHZ_PORT = 10256
METRICS_PORT = 10249

_CHOICES = {option.setting: option.choices for option in reversed(OPTIONS) if option.choices}
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


def check(setting: str, value: Any, place: str) -> Any:
    """The setting's final value.

    Args:
        value: of the type that the options table tells.
        place: the flag, field or variable it came from, for the error.

    Raises:
        UsageError: it may not be that.
    """
    choices = _CHOICES.get(setting)
    if choices and value and value not in choices:
        raise UsageError(f"{place}: want {' or '.join(choices)}, got {value!r}")
    if setting not in _CHECKS:
        return value
    try:
        return _CHECKS[setting](value)
    except InvalidField as error:
        raise UsageError(f"{place}: {error}") from None


def check_together(values: Mapping[str, Any], places: Mapping[str, str]) -> None:
    """Settings that must fit each other.

    Raises:
        UsageError: they do not.
    """
    if values["manifests"] and values["kubeconfig"] and not places["kubeconfig"].startswith("--config "):
        raise UsageError(f"--manifests and {places['kubeconfig']}: give one of them, not both")
    least, period = values["min_sync_period"], values["sync_period"]
    if least > period:
        raise UsageError(
            f"{places['min_sync_period']}: {format_duration(least)} is longer than the sync period "
            f"({places['sync_period']}, {format_duration(period)}); make it shorter"
        )


def check_ignored(fields: Mapping[str, Any], path: str) -> None:
    """Fields of a KubeProxyConfiguration that do nothing here, yet would stop kube-proxy if wrong.

    Raises:
        UsageError: one of them is.
    """
    for name, wrong, want in _IGNORED_CHECKS:
        if name in fields and wrong(fields[name]):
            raise UsageError(f"--config {path}: {name}: want {want}, got {fields[name]!r}")
    for mode, name in (
        ("BridgeInterface", "detectLocal.bridgeInterface"),
        ("InterfaceNamePrefix", "detectLocal.interfaceNamePrefix"),
    ):
        if fields.get("detectLocalMode") == mode and name not in fields:
            raise UsageError(f"--config {path}: {name}: is empty, but detectLocalMode is {mode}; set it")


def _wrong_cluster_cidr(text: str) -> bool:
    parts = text.split(",")
    try:
        families = {parse_network(part).family for part in parts}
    except InvalidField:
        return True
    return len(families) != len(parts)


def _outside(low: int, high: int) -> Callable[[int], bool]:
    return lambda value: not low <= value <= high


_IGNORED_CHECKS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("clusterCIDR", _wrong_cluster_cidr, "a CIDR, or one of each family separated by a comma"),
    ("iptables.masqueradeBit", _outside(0, 31), "0 to 31"),
    ("nftables.masqueradeBit", _outside(0, 31), "0 to 31"),
    ("conntrack.maxPerCore", _outside(0, 2**31 - 1), "0 or more"),
    ("conntrack.min", _outside(0, 2**31 - 1), "0 or more"),
    ("conntrack.tcpEstablishedTimeout", lambda seconds: seconds < 0, "0s or more"),
    ("conntrack.tcpCloseWaitTimeout", lambda seconds: seconds < 0, "0s or more"),
    ("conntrack.udpTimeout", lambda seconds: seconds < 0, "0s or more"),
    ("conntrack.udpStreamTimeout", lambda seconds: seconds < 0, "0s or more"),
    ("configSyncPeriod", lambda seconds: seconds <= 0, "more than 0s"),
    ("clientConnection.burst", lambda burst: burst < 0, "0 or more"),
)


def _node_name(text: str) -> str:
    name = text.strip().lower()
    if not _DNS_SUBDOMAIN.fullmatch(name) or len(name) > 253:
        raise InvalidField("not the name of a node; give it with --node-name", text)
    return name


def _api_server(text: str) -> str | None:
    if not text:
        return None
    # Loads TLS, which an agent on manifests does not need.
    from pyagent.cluster.server_address import parse_host_port

    scheme, separator, rest = text.rpartition("://")
    address = rest.partition("/")[0]
    if separator and scheme not in ("https", "http"):
        raise InvalidField("want HOST:PORT or https://HOST:PORT", text)
    if separator and not re.search(r":\d+$", address):
        address += ":443" if scheme == "https" else ":80"
    try:
        parse_host_port(address)
    except UsageError:
        raise InvalidField("want HOST:PORT, for example 192.0.2.10:6443", text) from None
    return address


def _networks(texts: Iterable[str]) -> tuple[Network, ...]:
    return tuple(parse_network(text) for text in texts)


def _node_port_addresses(texts: list[str]) -> tuple[Network, ...] | None:
    if PRIMARY in texts and len(texts) > 1:
        raise InvalidField(f"want CIDRs, or {PRIMARY} alone", ",".join(texts))
    return None if texts in ([], [PRIMARY]) else _networks(texts)


def _outside_devices(text: str) -> str:
    devices = [part.strip() for part in text.split(",")]
    read_outside(devices)
    return ",".join(devices)


def _source_ports(text: str) -> str:
    found = re.fullmatch(r"(\d{1,5})-(\d{1,5})", text, re.ASCII)
    low, high = map(int, found.groups()) if found else (0, 0)
    if not 0 < low <= high <= MAX_PORT:
        raise InvalidField("want FIRST-LAST from 1 to 65535, for example 61000-65535", text)
    return f"{low}-{high}"


def _bind(default_port: int) -> Callable[[str], BindAddress | None]:
    return lambda text: parse_bind_address(text, default_port)


def _between(low: int, high: int) -> Callable[[int], int]:
    def checked(value: int) -> int:
        if not low <= value <= high:
            raise InvalidField(f"want {low} to {high}", value)
        return value

    return checked


def _not_negative(seconds: float) -> float:
    if seconds < 0:
        raise InvalidField("want 0s or more", format_duration(seconds))
    return seconds


def _positive(seconds: float) -> float:
    if seconds <= 0:
        raise InvalidField("want more than 0s", format_duration(seconds))
    return seconds


def _taint_key(text: str) -> str:
    prefix, _, name = text.rpartition("/")
    if text and not (_QUALIFIED.fullmatch(name) and (not prefix or _DNS_SUBDOMAIN.fullmatch(prefix))):
        raise InvalidField("want the key of a taint, such as kubesock.io/agent-not-ready", text)
    return text


def _path(text: str) -> Path | None:
    return Path(text).expanduser() if text else None


def _directory(text: str) -> Path:
    if not text.startswith("/"):
        raise InvalidField("want an absolute path", text)
    return Path(text)


def _map_sizes(texts: list[str]) -> Capacities:
    sizes: dict[str, int] = {}
    for text in texts:
        name, _, number = text.partition("=")
        name = name.strip().replace("-", "_")
        if name not in Capacities._fields:
            raise InvalidField(f"no such map; want one of {', '.join(Capacities._fields)}", text)
        if not re.fullmatch(r"[0-9]{1,8}", number.strip()) or not int(number) >= 16:
            raise InvalidField("want NAME=N with N from 16 to 99999999", text)
        sizes[name] = int(number)
    if (size := sizes.get("event_bytes", 4096)) & (size - 1) or size < 4096:
        raise InvalidField("the size of a ring buffer is a power of two from 4096", str(size))
    return Capacities(**sizes)


def _group(text: str) -> int | None:
    if not text:
        return None
    try:
        return int(text) if re.fullmatch("[0-9]{1,9}", text) else grp.getgrnam(text).gr_gid
    except KeyError:
        raise InvalidField("no such group here; make it, or give its number", text) from None


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "node_name": _node_name,
    "api_server": _api_server,
    "manifests": _path,
    "kubeconfig": lambda text: text or None,
    "cgroup": _path,
    "write_config_to": _path,
    "bpffs": _directory,
    "state_dir": _directory,
    "readers_group": _group,
    "bind_address": parse_address,
    "startup_taint": _taint_key,
    "service_cidrs": _networks,
    "external_ip_cidrs": lambda texts: None if texts is None else _networks(texts),
    "node_port_addresses": _node_port_addresses,
    "outside": _outside_devices,
    "outside_source_ports": _source_ports,
    "map_sizes": _map_sizes,
    "udp_grace": _not_negative,
    "healthz_bind_address": _bind(HEALTHZ_PORT),
    "metrics_bind_address": _bind(METRICS_PORT),
    "verbosity": _between(0, 99),
    "sync_period": _positive,
    "min_sync_period": _not_negative,
    "oom_score_adj": _between(-1000, 1000),
}
