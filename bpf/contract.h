/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What kernel and user space agree on. pyagent/datapath/layout.py says the same
 * in Python; at every load the loader appends one _Static_assert for each
 * field and enumerator below, so a difference fails the compilation by name.
 *
 * Addresses are 16 bytes in network order, IPv4 as v4-mapped (::ffff:a.b.c.d).
 * Words that decide where a connection goes are single u64, stored and read in
 * one instruction; everything wider is immutable while a program can read it.
 */
#ifndef KUBESOCK_CONTRACT_H
#define KUBESOCK_CONTRACT_H

#define LAYOUT_VERSION 1

/* What a hook did. */
enum outcome {
	OUTCOME_NOT_A_SERVICE = 0,
	OUTCOME_TRANSLATED = 1,
	OUTCOME_TRANSLATED_BY_AFFINITY = 2,
	OUTCOME_TRANSLATED_SAME_SOCKET = 3,
	OUTCOME_REFUSED_NO_ENDPOINTS = 4,
	OUTCOME_REFUSED_NO_LOCAL_ENDPOINTS = 5,
	OUTCOME_REFUSED_UNDEFINED_PORT = 6,
	OUTCOME_REFUSED_UNALLOCATED_ADDRESS = 7,
	OUTCOME_REFUSED_SOURCE_RANGE = 8,
	OUTCOME_REFUSED_UNKNOWN_SOURCE = 9,
	OUTCOME_REFUSED_UNSTABLE = 10,
	OUTCOME_PASSED_OTHER_PROXY = 11,
	OUTCOME_PASSED_BOUND_TO_LOOPBACK = 12,
	OUTCOME_PASSED_OPTED_OUT = 13,
	OUTCOME_ORIGIN_NOT_STORED = 14,
	OUTCOME_REPLY_TRANSLATED = 15,
	OUTCOME_PEER_TRANSLATED = 16,
	OUTCOME_PROBED = 17,
	OUTCOME_EVENT_NOT_STORED = 18,
	OUTCOME_REFUSED_NO_SOURCE_PORT = 19,
	OUTCOME_PASSED_UNKNOWN_FLOW = 20,
};

struct address {
	__u32 word[4];
};

/* frontends: scope of a key. */
enum scope {
	SCOPE_ADDRESS = 0,
	SCOPE_NODE_PORT = 1, /* addr.word[0] = family (4, 6), word[1] = node id */
	SCOPE_OUTSIDE = 2, /* added to one of these: what packets from outside get instead */
};

/* Node ids; from 1 on they name other nodes. */
enum node_id {
	NODE_OWN = 0,
	NODE_ANY_OTHER = 0xffffffff,
};

struct frontend_key {
	struct address addr;
	__be16 port;
	__u8 protocol;
	__u8 scope;
};

/*
 * frontends, value: one u64
 *	63..32 set id, 31..0 tag of the key (frontend_tag)
 * sets: one u64
 *	63..32 first slot, 31..16 count, 15..0 generation (of user space; 0: nobody's any more)
 * slots: a block is BLOCK_HEADER_WORDS words, then one word a backend
 *	word 0: 63..32 service-port id, 31..0 its incarnation
 *	word 1: 63..32 node id of the view, 31..24 view, 23..17 outcome when empty, 16..0 affinity seconds
 *	word 2: 63..32 free, 31..0 a slot that a socket bound to loopback can reach, or NO_SLOT
 *	others: 63..32 backend id, 31..0 its incarnation
 */
#define BLOCK_HEADER_WORDS 3

enum view {
	VIEW_CLUSTER = 0,
	VIEW_LOCAL = 1,
	VIEW_NODE = 2,
	VIEW_NODE_LOCAL = 3,
	VIEW_RESTRICTED = 4, /* from here on clients are held against source_ranges */
	VIEW_RESTRICTED_LOCAL = 5,
};

#define NO_SLOT 0xffffffff

struct backend {
	struct address addr;
	__be16 port;
	__u16 state; /* enum backend_state bits; the only field that changes in place */
	__u32 incarnation;
	__u32 service_port;
	__u32 node;
};

enum backend_state {
	BACKEND_READY = 1,
	BACKEND_SERVING = 2,
	BACKEND_TERMINATING = 4,
	BACKEND_LOCAL = 8,
	BACKEND_ON_NODE_ADDRESS = 16, /* the node's own address: reachable from a loopback source */
};

/* service_addresses */
struct service_address_key {
	__u32 prefix;
	struct address addr;
};

enum service_address_rule {
	RULE_REFUSE_UNDEFINED_PORT = 1,
	RULE_REFUSE_UNALLOCATED = 2,
	RULE_PASS = 3,
};

/* source_ranges: who may dial a service port's frontends of VIEW_RESTRICTED. */
struct source_range_key {
	__u32 prefix; /* 32 + bits of the range */
	__u32 service_port;
	struct address addr;
};

/* client_addresses: network namespace cookie -> its addresses, all zeros where it has none. */
struct client_addresses {
	struct address ipv4;
	struct address ipv6;
};

/* opted_out: whose sockets are left alone. */
enum workload_kind {
	WORKLOAD_NETNS = 1, /* id is a network namespace cookie */
	WORKLOAD_CGROUP = 2, /* id is a cgroup's */
};

struct workload_key {
	__u64 id;
	__u32 kind;
	__u32 pad;
};

struct affinity_key {
	__u32 service_port;
	__u32 incarnation;
	__u64 client; /* network namespace cookie; of a packet the upper half of its source */
	__u64 client_low; /* 0; of a packet the lower half */
};

struct affinity {
	__u64 backend; /* as in a slot */
	__u64 last_used; /* seconds since boot */
	__u32 slot; /* where in the block it stood */
	__u32 pad;
};

/* origin: the frontend that a connected socket dialled. */
struct origin {
	struct address frontend;
	struct address backend;
	__be16 frontend_port;
	__be16 backend_port;
	__u32 service_port;
	__u32 service_port_incarnation;
	__u32 backend_id;
	__u32 backend_incarnation;
	__u8 protocol;
	__u8 family; /* of the socket: AF_INET or AF_INET6 */
	__u16 pad;
	__u64 since; /* nanoseconds since boot */
};

/* origin_udp: what an unconnected UDP socket talks to, the latest few. */
struct datagram_origin {
	struct address frontend;
	struct address backend;
	__be16 frontend_port;
	__be16 backend_port;
	__u32 slot;
	__u64 backend_word; /* as in a slot; 0: this place is free */
};

#define DATAGRAM_ORIGINS 4

struct datagram_origins {
	struct datagram_origin entry[DATAGRAM_ORIGINS];
	__u32 next; /* the place that is written next, modulo DATAGRAM_ORIGINS */
	__u16 latest; /* the place last sent through: two frontends may share a backend */
	__u16 overflowed; /* not 0: older ones are in origin_overflow */
};

/* origin_overflow: as datagram_origin, for sockets that talk to more Services than fit. */
struct overflow_key {
	__u64 socket; /* cookie */
	struct address backend;
	__be16 backend_port;
	__u16 pad[3];
};

struct overflow {
	struct address frontend;
	__be16 frontend_port;
	__u16 pad[3];
};

/* What connections.c tells of one socket that has an origin. */
struct connection {
	__u64 cookie; /* 0 where the kernel cannot tell */
	__u32 netns; /* inode number of its network namespace */
	__u16 family; /* AF_INET, AF_INET6 */
	__u8 state; /* as in net/tcp_states.h */
	__u8 protocol;
	struct address source;
	struct address peer;
	__u16 source_port; /* host order; 0: closed, not freed yet */
	__be16 peer_port;
	__u32 pad;
	struct origin origin;
};

enum feature {
	FEATURE_OPT_OUT = 1,
	FEATURE_HOST_ONLY = 2,
	FEATURE_SOURCE_RANGES = 4,
};

#define SERVED_PREFIX_WORDS 8

/* config, one element. Each field is changed by one store. */
struct config {
	__u64 node_netns; /* cookie of the node's network namespace */
	__u64 event_lease; /* nanoseconds since boot; nobody listens after that */
	__u64 service_ipv6_low; /* bounds of service_addresses, upper half, host order */
	__u64 service_ipv6_high;
	__u32 service_ipv4_low; /* host order; low > high: none */
	__u32 service_ipv4_high;
	__u16 node_port_low; /* host order; low > high: none */
	__u16 node_port_high;
	__u32 features;
	__u32 event_outcomes; /* bit set of outcomes to report */
	__u32 event_service_port; /* 0: all; what belongs to none is reported too */
	__u32 event_sample; /* report one in this many, 0 and 1: all */
	__u16 opt_out_level; /* depth below the cgroup root where pods' cgroups are; 0: nowhere */
	__u16 opt_out_deeper; /* the other depth that they are at */
	/*
	 * Bit set of hashes of the prefixes (IPv4 /16, IPv6 /64) that have a frontend or a service
	 * address in them. A dial to another prefix is a nodePort's or nobody's.
	 */
	__u64 served_prefixes[SERVED_PREFIX_WORDS];
	__u64 event_netns; /* cookie; 0: all */
	__u16 source_port_low; /* host order; what packets from outside leave with when they go to another node */
	__u16 source_port_high;
	__u32 pad;
	__u64 reserved[6];
};

/* meta, one element. */
struct meta {
	__u64 layout;
	__u64 agent_started; /* nanoseconds since boot */
	__u64 program_tag;
	__u64 agent_pid;
	__u64 reserved[4];
};

/* names: what ids stand for, so that readers need only the pins. */
enum name_kind {
	NAME_SERVICE_PORT = 1,
	NAME_NODE = 2,
};

struct name_key {
	__u32 kind;
	__u32 id;
};

#define NAME_TEXT 320

struct name {
	__u32 incarnation;
	__u8 family; /* 4, 6; 0 for nodes */
	__u8 protocol;
	__u8 service_type;
	__u8 policy; /* enum policy bits */
	char text[NAME_TEXT]; /* service port: namespace/name:port-name; node: name NUL zone */
};

enum policy {
	POLICY_INTERNAL_LOCAL = 1,
	POLICY_EXTERNAL_LOCAL = 2,
	POLICY_SOURCE_RANGES = 4,
};

enum hook {
	HOOK_CONNECT4 = 0,
	HOOK_CONNECT6 = 1,
	HOOK_SENDMSG4 = 2,
	HOOK_SENDMSG6 = 3,
	HOOK_RECVMSG4 = 4,
	HOOK_RECVMSG6 = 5,
	HOOK_GETPEERNAME4 = 6,
	HOOK_GETPEERNAME6 = 7,
	HOOK_OUTSIDE = 8, /* a packet */
};

struct event {
	__u64 time; /* nanoseconds since boot */
	__u64 cgroup;
	__u64 netns;
	__u64 socket;
	struct frontend_key dialled;
	struct address backend;
	__be16 backend_port;
	__u8 outcome;
	__u8 hook;
	__u32 service_port;
	__u32 backend_id;
	__u32 pid;
	__u32 pad;
	char comm[16]; /* of a packet: the address that it comes from */
	__u64 previous; /* as in a slot: the backend that the client was on, maybe the same; 0: none */
};

/*
 * flows: connections from outside, each kept as one or two pairs of halves.
 *
 * A half at ingress (A -> B) puts X in the place of the destination B; its other half, at egress (X -> A),
 * puts B in the place of the source X. The first pair leads client -> frontend to the backend. Where the
 * backend is on another node, a second pair gives the packet that leaves for it an address of this node.
 */
enum flow_point {
	FLOW_INGRESS = 0,
	FLOW_EGRESS = 1,
};

struct flow_key {
	struct address source;
	struct address destination;
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 point;
	__u16 pad;
};

/* What was seen of a connection; both halves know. */
enum flow_seen {
	FLOW_SEEN_REPLY = 1,
	FLOW_SEEN_FIN_OF_CLIENT = 2,
	FLOW_SEEN_FIN_OF_BACKEND = 4,
	FLOW_SEEN_RESET = 8,
};

enum flow_flag {
	FLOW_OF_CLIENT = 1, /* packets that the client sends come here */
	FLOW_FROM_POD = 2, /* the client is behind a pod-side device */
	FLOW_UNDECIDED = 4, /* whether the source must change shows when the first packet leaves */
};

/* Seconds that a flow lives after its last packet: kube-proxy's, and conntrack's where it sets none. */
enum flow_seconds {
	FLOW_SECONDS_RESET = 10,
	FLOW_SECONDS_UDP_ONE_WAY = 30,
	FLOW_SECONDS_TCP_ONE_WAY = 60,
	FLOW_SECONDS_UDP = 120,
	FLOW_SECONDS_CLOSED = 120,
	FLOW_SECONDS_CLOSING = 3600,
	FLOW_SECONDS_TCP = 86400,
};

struct flow {
	struct address
		addr; /* takes the place of the destination (ingress) or of the source (egress) */
	__be16 port;
	__be16 other_port; /* takes the place of the port on the other side; nearly always the same */
	__u8 seen;
	__u8 flags;
	__u16 pad;
	__u64 last_seen; /* nanoseconds since boot; written once a second */
	__u64 since;
	__u64 backend; /* as in a slot */
	__u32 service_port;
	__u32 service_port_incarnation;
};

/* fragments: ports, which only the first fragment has. */
struct fragment_key {
	struct address source;
	struct address destination;
	__u32 identification;
	__u8 protocol;
	__u8 pad[3];
};

struct fragment {
	__be16 source_port;
	__be16 destination_port;
};

/* outside_devices: network device -> what it is, and under which addresses packets for other nodes leave. */
enum device_flag {
	DEVICE_POD_SIDE = 1,
};

struct outside_device {
	struct address ipv4; /* all zeros: none */
	struct address ipv6;
	__u32 flags;
	__u32 pad;
};

#endif
