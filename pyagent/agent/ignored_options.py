"""What is accepted for the sake of kube-proxy command lines and configuration files, and does nothing."""

from __future__ import annotations

from pyagent.agent.options import OPTIONS, Kind, Option, Value


def _ignored(flag: str, value: Value, field: str, because: str) -> Option:
    return Option(flag, "", value, f"Ignored: {because}.", Kind.IGNORED, field=field, ignored_because=because)


_NO_RULES = "there are no packet rules"
_NO_NAT = "connections of Services need no NAT entry"
_NO_SOURCES = "a socket's namespace tells who dials"
_RARE = "the agent's requests are few"
_KLOG = "this is not klog"

IGNORED: tuple[Option, ...] = (
    _ignored("--feature-gates", Value.SWITCHES, "featureGates", "there are no gates"),
    _ignored(
        "--kube-api-content-type", Value.TEXT, "clientConnection.contentType", "objects are read as JSON"
    ),
    _ignored("--kube-api-qps", Value.FLOAT, "clientConnection.qps", _RARE),
    _ignored("--kube-api-burst", Value.INT, "clientConnection.burst", _RARE),
    _ignored("--config-sync-period", Value.DURATION, "configSyncPeriod", "watches lose nothing"),
    _ignored("--healthz-port", Value.INT, "", "deprecated, use --healthz-bind-address"),
    _ignored("--metrics-port", Value.INT, "", "deprecated, use --metrics-bind-address"),
    _ignored(
        "--show-hidden-metrics-for-version", Value.TEXT, "showHiddenMetricsForVersion", "none is hidden"
    ),
    _ignored("--cluster-cidr", Value.TEXT, "clusterCIDR", _NO_SOURCES),
    _ignored("--detect-local-mode", Value.TEXT, "detectLocalMode", _NO_SOURCES),
    _ignored("--pod-bridge-interface", Value.TEXT, "detectLocal.bridgeInterface", _NO_SOURCES),
    _ignored("--pod-interface-name-prefix", Value.TEXT, "detectLocal.interfaceNamePrefix", _NO_SOURCES),
    _ignored("--masquerade-all", Value.BOOL, "iptables.masqueradeAll", _NO_RULES),
    _ignored("--conntrack-max-per-core", Value.INT, "conntrack.maxPerCore", _NO_NAT),
    _ignored("--conntrack-min", Value.INT, "conntrack.min", _NO_NAT),
    _ignored(
        "--conntrack-tcp-timeout-established", Value.DURATION, "conntrack.tcpEstablishedTimeout", _NO_NAT
    ),
    _ignored("--conntrack-tcp-timeout-close-wait", Value.DURATION, "conntrack.tcpCloseWaitTimeout", _NO_NAT),
    _ignored("--conntrack-tcp-be-liberal", Value.BOOL, "conntrack.tcpBeLiberal", _NO_NAT),
    _ignored("--conntrack-udp-timeout", Value.DURATION, "conntrack.udpTimeout", _NO_NAT),
    _ignored("--conntrack-udp-timeout-stream", Value.DURATION, "conntrack.udpStreamTimeout", _NO_NAT),
    _ignored("--vmodule", Value.TEXT, "", _KLOG),
    _ignored("--log-flush-frequency", Value.DURATION, "", _KLOG),
    _ignored("--log-text-split-stream", Value.BOOL, "", _KLOG),
    _ignored("--log-text-info-buffer-size", Value.TEXT, "", _KLOG),
    _ignored("--log-json-split-stream", Value.BOOL, "", _KLOG),
    _ignored("--log-json-info-buffer-size", Value.TEXT, "", _KLOG),
)
"""kube-proxy's flags that are accepted and do nothing."""

ALL_OPTIONS = (*OPTIONS, *IGNORED)

FILE_ONLY: dict[str, Value] = {
    "apiVersion": Value.TEXT,
    "kind": Value.TEXT,
    "clientConnection.acceptContentTypes": Value.TEXT,
    "logging.flushFrequency": Value.ANY,  # a duration, or a number of nanoseconds
    "logging.vmodule": Value.ANY,
    "logging.options": Value.MAPPING,
    "iptables.masqueradeBit": Value.INT,
    "iptables.snatNodeInternalIP": Value.BOOL,
    "nftables.masqueradeBit": Value.INT,
    "nftables.masqueradeAll": Value.BOOL,
    "nftables.syncPeriod": Value.DURATION,
    "nftables.minSyncPeriod": Value.DURATION,
    "ipvs.syncPeriod": Value.DURATION,
    "ipvs.minSyncPeriod": Value.DURATION,
    "ipvs.scheduler": Value.TEXT,
    "ipvs.excludeCIDRs": Value.LIST,
    "ipvs.strictARP": Value.BOOL,
    "ipvs.tcpTimeout": Value.DURATION,
    "ipvs.tcpFinTimeout": Value.DURATION,
    "ipvs.udpTimeout": Value.DURATION,
    "winkernel": Value.MAPPING,
    "windowsRunAsService": Value.BOOL,
    "portRange": Value.TEXT,
    "udpIdleTimeout": Value.DURATION,
}
"""Fields of a KubeProxyConfiguration that no flag sets."""

FILE_FIELDS: dict[str, Value] = {
    **{option.field: option.value for option in ALL_OPTIONS if option.field},
    **FILE_ONLY,
}
