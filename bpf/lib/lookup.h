/* SPDX-License-Identifier: GPL-2.0-only */
/* From a dialled address to a set, or to the reason why there is none. */
#ifndef KUBESOCK_LOOKUP_H
#define KUBESOCK_LOOKUP_H

/* One load: a word taken apart as a struct would be read in pieces, and pieces can tear. */
#define READ_WORD(pointer) (*(volatile u64 *)(pointer))
#define LOOKUP_ATTEMPTS 3

enum found {
	FOUND_NOTHING,
	FOUND_SET,
	FOUND_UNSTABLE, /* the entry kept changing its owner under us */
};

static __always_inline struct config *configuration(void)
{
	u32 index = 0;

	return config.lookup(&index);
}

/* Which bit of served_prefixes is an address's. Also computed by bounds.py, prefix_bit(). */
static __always_inline u32 prefix_bit(const struct address *addr)
{
	u32 prefix = is_ipv4(addr) ? HOST_32(addr->word[3]) >> 16 :
				     addr->word[0] * 0x85ebca6b ^ addr->word[1];

	return prefix * 0x9e3779b1 >> 23;
}

static __always_inline bool may_be_node_port(struct config *settings, __be16 port)
{
	return HOST_16(port) >= settings->node_port_low &&
	       HOST_16(port) <= settings->node_port_high;
}

/*
 * False: the dial concerns no Service. Asked first: nearly all that a node dials can be told
 * from a dial to a Service by two numbers in one place, without a look-up in a hash map.
 */
static __always_inline bool may_be_served(struct config *settings,
					  const struct frontend_key *dialled)
{
	u32 bit = prefix_bit(&dialled->addr);
	u64 word = settings->served_prefixes[bit / 64 % SERVED_PREFIX_WORDS];

	return word >> bit % 64 & 1 || may_be_node_port(settings, dialled->port);
}

/* Also computed by layout.py, frontend_tag(). */
static __always_inline u32 frontend_tag(const struct frontend_key *key)
{
	const u32 *words = (const u32 *)key;
	u32 tag = 0;

#pragma unroll
	for (int i = 0; i < 5; i++)
		tag = (tag ^ words[i]) * 0x9e3779b1;
	return tag ^ (tag >> 15);
}

/*
 * The kernel may give a removed hash element to another key while we still hold
 * its pointer; the tag in the word tells.
 */
static __always_inline enum found find_frontend(struct frontend_key *key, u32 *set_id)
{
	for (int attempt = 0; attempt < LOOKUP_ATTEMPTS; attempt++) {
		u64 *entry = frontends.lookup(key);
		u64 word;

		if (!entry)
			return FOUND_NOTHING;
		word = READ_WORD(entry);
		if ((u32)word == frontend_tag(key)) {
			*set_id = word >> 32;
			return FOUND_SET;
		}
	}
	return FOUND_UNSTABLE;
}

/*
 * Which node owns the address; false: none, or a loopback that is not the node's.
 * All of 127.0.0.0/8 answers as 127.0.0.1 does.
 */
static __always_inline bool node_of(struct bpf_sock_addr *ctx, struct config *settings,
				    const struct address *addr, u32 *node)
{
	struct address key = *addr;
	u32 *owner;

	if (is_loopback(addr)) {
		if (bpf_get_netns_cookie(ctx) != settings->node_netns)
			return false;
		if (is_ipv4(addr))
			key.word[3] = LOOPBACK_IPV4;
	}
	owner = node_addresses.lookup(&key);
	if (!owner)
		return false;
	*node = *owner;
	return true;
}

static __always_inline struct frontend_key node_port_key(const struct frontend_key *dialled,
							 u32 node)
{
	struct frontend_key key = {
		.addr.word[0] = is_ipv4(&dialled->addr) ? 4 : 6,
		.addr.word[1] = node,
		.port = dialled->port,
		.protocol = dialled->protocol,
		.scope = SCOPE_NODE_PORT,
	};

	return key;
}

static __always_inline enum found find_node_port(struct bpf_sock_addr *ctx, struct config *settings,
						 struct frontend_key *dialled, u32 *set_id)
{
	struct frontend_key key;
	enum found found;
	u32 node;

	if (!may_be_node_port(settings, dialled->port))
		return FOUND_NOTHING;
	if (!node_of(ctx, settings, &dialled->addr, &node))
		return FOUND_NOTHING;
	key = node_port_key(dialled, node);
	found = find_frontend(&key, set_id);
	if (found != FOUND_NOTHING || node == NODE_OWN)
		return found;
	key.addr.word[1] = NODE_ANY_OTHER;
	return find_frontend(&key, set_id);
}

static __always_inline enum found find_set(struct bpf_sock_addr *ctx, struct config *settings,
					   struct frontend_key *dialled, u32 *set_id)
{
	enum found found = find_frontend(dialled, set_id);

	if (found != FOUND_NOTHING)
		return found;
	return find_node_port(ctx, settings, dialled, set_id);
}

static __always_inline bool in_service_range(struct config *settings, struct address *addr)
{
	u64 upper;

	if (is_ipv4(addr)) {
		u32 host = HOST_32(addr->word[3]);

		return host >= settings->service_ipv4_low && host <= settings->service_ipv4_high;
	}
	upper = (u64)HOST_32(addr->word[0]) << 32 | HOST_32(addr->word[1]);
	return upper >= settings->service_ipv6_low && upper <= settings->service_ipv6_high;
}

/* What becomes of a dial that is no frontend. */
static __always_inline enum outcome unserved(struct config *settings, struct frontend_key *dialled)
{
	struct service_address_key key = { .prefix = 128, .addr = dialled->addr };
	u32 *rule;

	if (!in_service_range(settings, &dialled->addr))
		return OUTCOME_NOT_A_SERVICE;
	rule = service_addresses.lookup(&key);
	if (!rule)
		return OUTCOME_NOT_A_SERVICE;
	switch (*rule) {
	case RULE_REFUSE_UNDEFINED_PORT:
		return OUTCOME_REFUSED_UNDEFINED_PORT;
	case RULE_REFUSE_UNALLOCATED:
		return OUTCOME_REFUSED_UNALLOCATED_ADDRESS;
	default:
		return OUTCOME_PASSED_OTHER_PROXY;
	}
}

#endif
