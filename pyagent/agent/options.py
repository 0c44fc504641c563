"""Every setting of `kubesock run`: one table for the command line, the configuration file, docs and tests.

Names and fields of kube-proxy's are its own (cmd/kube-proxy/app/options.go, KubeProxyConfiguration v1alpha1).
"""

from __future__ import annotations

from enum import Enum

import msgspec

API_VERSION = "kubeproxy.config.k8s.io/v1alpha1"
KIND = "KubeProxyConfiguration"


class Kind(Enum):
    OURS = "ours"
    KUBE_PROXY = "kube-proxy"  # its name, and its meaning
    IGNORED = "ignored"  # accepted, so that a kube-proxy command line works


class Value(Enum):
    """What a flag's text or a file's value must be."""

    TEXT = "a text"
    BOOL = "true or false"
    INT = "a whole number"
    FLOAT = "a number"
    DURATION = "a duration such as 30s"
    LIST = "a list"
    SWITCHES = "a mapping of names to true or false"
    MAPPING = "a mapping"
    ANY = "anything"


class Option(msgspec.Struct, frozen=True):
    """One flag. Several may set the same setting: the one that comes first in the table wins."""

    flag: str
    setting: str  # field of AgentConfig; "" if ignored
    value: Value
    help: str
    kind: Kind = Kind.OURS
    default: str = ""  # as it would be written
    field: str = ""  # in KubeProxyConfiguration
    short: str = ""
    metavar: str = ""
    choices: tuple[str, ...] = ()

    ignored_because: str = ""

    @property
    def flags(self) -> tuple[str, ...]:
        """What can be typed."""
        return (self.flag, self.short) if self.short else (self.flag,)


_Y = Kind.KUBE_PROXY
_TEXT, _BOOL, _INT, _DURATION, _LIST = Value.TEXT, Value.BOOL, Value.INT, Value.DURATION, Value.LIST

OPTIONS: tuple[Option, ...] = (
    # Where objects come from.
    Option(
        "--manifests",
        "manifests",
        _TEXT,
        "Serve the objects in the files of this directory, which is watched, instead of a cluster's.",
        metavar="DIR",
    ),
    Option(
        "--kubeconfig",
        "kubeconfig",
        _TEXT,
        "Credentials for the API server. Default: the pod's service account, then $KUBECONFIG.",
        _Y,
        field="clientConnection.kubeconfig",
        metavar="FILE",
    ),
    Option(
        "--api-server",
        "api_server",
        _TEXT,
        "API server to dial instead of the one the credentials name. In a pod it must not be a Service.",
        metavar="HOST:PORT",
    ),
    Option("--master", "api_server", _TEXT, "Same as --api-server, as a URL too.", _Y, metavar="URL"),
    Option(
        "--config",
        "config",
        _TEXT,
        "A KubeProxyConfiguration; flags win over it.",
        _Y,
        metavar="FILE",
    ),
    # This node.
    Option(
        "--node-name",
        "node_name",
        _TEXT,
        "Name of this node. Default: $NODE_NAME, then the host name in lower case.",
        metavar="NAME",
    ),
    Option(
        "--hostname-override",
        "node_name",
        _TEXT,
        "Same as --node-name.",
        _Y,
        field="hostnameOverride",
        metavar="NAME",
    ),
    Option(
        "--cgroup",
        "cgroup",
        _TEXT,
        "Processes below this cgroup are served. Default: the cgroup2 root.",
        metavar="PATH",
    ),
    Option(
        "--bpffs",
        "bpffs",
        _TEXT,
        "Where programs, maps and links are pinned.",
        default="/sys/fs/bpf/kubesock",
        metavar="DIR",
    ),
    Option(
        "--state-dir",
        "state_dir",
        _TEXT,
        "What the agent remembers, and its socket.",
        default="/var/lib/kubesock",
        metavar="DIR",
    ),
    Option(
        "--bind-address",
        "bind_address",
        _TEXT,
        "The node's primary address, if not the Node object's. Nothing is bound to it.",
        _Y,
        default="0.0.0.0",  # noqa: S104  kube-proxy's default, and nothing is bound to it
        field="bindAddress",
        metavar="IP",
    ),
    # What is translated.
    Option(
        "--readers-group",
        "readers_group",
        _TEXT,
        "Members of this group may run the reading verbs. Default: root alone.",
        metavar="GROUP",
    ),
    Option(
        "--service-cidr",
        "service_cidrs",
        _LIST,
        "Unallocated addresses in these ranges are refused, beside those of ServiceCIDR objects.",
        metavar="CIDR,…",
    ),
    Option(
        "--nodeport-addresses",
        "node_port_addresses",
        _LIST,
        "Node addresses that answer on nodePorts: CIDRs, or `primary`.",
        _Y,
        default="primary",
        field="nodePortAddresses",
        metavar="CIDR,…",
    ),
    Option(
        "--iptables-localhost-nodeports",
        "localhost_node_ports",
        _BOOL,
        "Whether 127.0.0.1 and ::1 answer on nodePorts.",
        _Y,
        default="true",
        field="iptables.localhostNodePorts",
    ),
    Option(
        "--remote-node-ports",
        "remote_node_ports",
        _TEXT,
        "Translate nodePorts of other nodes at the client; auto: up to 500 nodes.",
        default="auto",
        choices=("auto", "on", "off"),
    ),
    Option(
        "--external-ip-cidrs",
        "external_ip_cidrs",
        _LIST,
        "Serve spec.externalIPs in these ranges only. Default: all, as kube-proxy.",
        metavar="CIDR,…",
    ),
    Option(
        "--outside",
        "outside",
        _TEXT,
        "Devices at which packets for Services are served: auto (uplinks and tunnels), names, pods:NAME.",
        default="auto",
        metavar="auto|off|DEVICES",
    ),
    Option(
        "--outside-source-ports",
        "outside_source_ports",
        _TEXT,
        "Ports for packets from outside that go on to another node. Nothing else on this node may use them.",
        default="61000-65535",
        metavar="FIRST-LAST",
    ),
    Option(
        "--host-only",
        "host_only",
        _BOOL,
        "Translate for processes in the node's own network namespace only.",
        default="false",
    ),
    Option(
        "--opt-out",
        "opt_out",
        _TEXT,
        'Leave Pods alone that, or whose Namespace, have kubesock.io/translate: "false".',
        default="off",
        choices=("off", "on"),
    ),
    Option(
        "--udp",
        "udp",
        _TEXT,
        "Which UDP sockets are served. connected spares busy UDP servers the hooks' price.",
        default="all",
        choices=("all", "connected"),
    ),
    Option(
        "--map-sizes",
        "map_sizes",
        _LIST,
        "Entries of maps to start with, such as backends=500000; maps that get full grow by themselves.",
        metavar="NAME=N,…",
    ),
    Option(
        "--udp-grace",
        "udp_grace",
        _DURATION,
        "How long a connected UDP socket stays on a backend that is merely not ready.",
        default="10s",
    ),
    Option(
        "--terminate-tcp",
        "terminate_tcp",
        _BOOL,
        "Also end TCP connections whose backend is gone.",
        default="false",
    ),
    Option(
        "--startup-taint",
        "startup_taint",
        _TEXT,
        "Take the taint of this key off the Node as soon as it is served; needs to patch Nodes.",
        metavar="KEY",
    ),
    # What it tells.
    Option(
        "--healthz-bind-address",
        "healthz_bind_address",
        _TEXT,
        "Where /healthz, /livez and /readyz are served; 0: nowhere.",
        _Y,
        default="0.0.0.0:10256",
        field="healthzBindAddress",
        metavar="IP:PORT",
    ),
    Option(
        "--metrics-bind-address",
        "metrics_bind_address",
        _TEXT,
        "Where /metrics, /configz and /proxyMode are served; 0: nowhere.",
        _Y,
        default="127.0.0.1:10249",
        field="metricsBindAddress",
        metavar="IP:PORT",
    ),
    Option(
        "--metrics-by",
        "metrics_by",
        _TEXT,
        "What choices, refusals and open sockets are told of in /metrics; backend: a series for each one.",
        default="service",
        choices=("none", "service", "backend"),
    ),
    Option(
        "--bind-address-hard-fail",
        "bind_address_hard_fail",
        _BOOL,
        "End if one of the two cannot be bound, instead of trying again.",
        _Y,
        default="false",
        field="bindAddressHardFail",
    ),
    Option(
        "--profiling",
        "profiling",
        _BOOL,
        "Serve /debug/stacks beside /metrics.",
        _Y,
        default="false",
        field="enableProfiling",
    ),
    Option(
        "--log-format",
        "log_format",
        _TEXT,
        "Log lines; auto: text on a terminal, else JSON.",
        default="auto",
        choices=("auto", "json", "text"),
    ),
    Option(
        "--logging-format",
        "log_format",
        _TEXT,
        "Same as --log-format.",
        _Y,
        field="logging.format",
        choices=("json", "text"),
    ),
    Option(
        "--v",
        "verbosity",
        _INT,
        "Log verbosity; 4 and more: debug lines.",
        _Y,
        default="0",
        field="logging.verbosity",
        short="-v",
        metavar="LEVEL",
    ),
    # How it runs.
    Option(
        "--observe",
        "observe",
        _BOOL,
        "Fill and follow the maps, attach nothing: a look beside kube-proxy before it is replaced.",
        default="false",
    ),
    Option(
        "--iptables-sync-period",
        "sync_period",
        _DURATION,
        "An update that waits twice as long makes /healthz 503.",
        _Y,
        default="30s",
        field="iptables.syncPeriod",
    ),
    Option(
        "--iptables-min-sync-period",
        "min_sync_period",
        _DURATION,
        "Least time between two plans; 0: a change does not wait.",
        _Y,
        default="0s",
        field="iptables.minSyncPeriod",
    ),
    Option(
        "--oom-score-adj",
        "oom_score_adj",
        _INT,
        "The agent's oom_score_adj, where it may set it.",
        _Y,
        default="-999",
        field="oomScoreAdj",
    ),
    Option(
        "--proxy-mode",
        "proxy_mode",
        _TEXT,
        "Which section of a KubeProxyConfiguration holds the sync periods; nothing else.",
        _Y,
        field="mode",
        choices=("iptables", "ipvs", "nftables", "kubesock"),
    ),
    Option(
        "--write-config-to",
        "write_config_to",
        _TEXT,
        "Write the effective KubeProxyConfiguration there and end.",
        _Y,
        metavar="FILE",
    ),
    Option("--cleanup", "cleanup", _BOOL, "As `kubesock cleanup`.", _Y, default="false"),
    Option(
        "--init-only",
        "init_only",
        _BOOL,
        "Mount the BPF file system if need be, all that takes more rights than serving, and end.",
        _Y,
        default="false",
    ),
)
"""The flags that do something, in the order of the help text."""
