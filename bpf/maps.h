/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Every map. The agent creates and pins them (kernel/map_set.py); sizes and
 * flags are its business. BCC makes a hash map of one entry in the place of
 * each while it compiles: instructions are the same for every type, and to open
 * the pinned ones BCC would need CAP_SYS_ADMIN (BPF_MAP_GET_FD_BY_ID).
 * "Agent" below means: one user-space writer, this side only reads.
 */
#ifndef KUBESOCK_MAPS_H
#define KUBESOCK_MAPS_H

#define PINNED_MAP(type, key, value, name) BPF_F_TABLE("hash", key, value, name, 1, 0)

/* Agent. Dialled address -> set. A miss: no frontend, see service_addresses. */
PINNED_MAP("hash", struct frontend_key, u64, frontends);

/* Agent. Set -> its block. One store moves every later connect to a new block. */
PINNED_MAP("array", u32, u64, sets);

/* Agent. Blocks; immutable from before they can be found until an RCU grace period after. */
PINNED_MAP("array", u32, u64, slots);

/* Agent. Immutable alike, but for `state`. */
PINNED_MAP("array", u32, struct backend, backends);

/* Agent. What to do with a service address that is no frontend. A miss: not ours. */
PINNED_MAP("lpm_trie", struct service_address_key, u32, service_addresses);

/* Agent. Address -> node id. A miss: no node's address. */
PINNED_MAP("hash", struct address, u32, node_addresses);

/* Agent. A miss: out of range. Asked only for frontends that are restricted. */
PINNED_MAP("lpm_trie", struct source_range_key, u32, source_ranges);

/* Agent. A miss: a network namespace that the agent has not seen yet. */
PINNED_MAP("hash", u64, struct client_addresses, client_addresses);

/* Agent. Read only while FEATURE_OPT_OUT is on. */
PINNED_MAP("hash", struct workload_key, u32, opted_out);

/* Here. Which backend a client's connections stay on; the agent only reads. */
PINNED_MAP("lru_hash", struct affinity_key, struct affinity, affinity);

/* Here. What a connected socket dialled; lives and dies with the socket. */
PINNED_MAP("sk_storage", int, struct origin, origin);

/* Here. What an unconnected UDP socket dials. */
PINNED_MAP("sk_storage", int, struct datagram_origins, origin_udp);

/* Here. The same for sockets that dial more than fit above. */
PINNED_MAP("lru_hash", struct overflow_key, struct overflow, origin_overflow);

/* Here. Connections per backend, in shards of MAX_BACKENDS. */
PINNED_MAP("array", u32, u64, chosen);

/* Here. Refusals per service port. */
PINNED_MAP("array", u32, u64, refused);

/* Here. Hook runs per outcome. */
PINNED_MAP("percpu_array", u32, u64, outcomes);

/* Agent. */
PINNED_MAP("array", u32, struct config, config);

/* `meta` and `layout` are for user space alone: who wrote the maps, and what they hold. */

/* Here, while somebody listens. */
struct events_table_t {
	int key;
	u32 leaf;
	int (*ringbuf_output)(void *, u64, u64);
	void *(*ringbuf_reserve)(u64);
	void (*ringbuf_discard)(void *, u64);
	void (*ringbuf_submit)(void *, u64);
	u32 max_entries;
};
__attribute__((section("maps/hash"))) struct events_table_t events = { .max_entries = 1 };

#endif
