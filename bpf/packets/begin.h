/* SPDX-License-Identifier: GPL-2.0-only */
/* A packet that belongs to no flow yet: whether it is for a Service, and where it is led then. */
#ifndef KUBESOCK_BEGIN_H
#define KUBESOCK_BEGIN_H

/* Of many thousand, for a client that used one port twice. The verifier walks through each. */
#define OTHER_PORT_ATTEMPTS 16
#define HIGH_PORTS 0xc000

static __always_inline struct outside_device *device_of(u32 index)
{
	return outside_devices.lookup(&index);
}

/* Other nodes' nodePorts are theirs to serve. `key` becomes the one that was found. */
static __always_inline enum found find_packet_set(struct config *settings, struct frontend_key *key,
						  u32 *set_id)
{
	enum found found = find_frontend(key, set_id);
	u32 *node;

	if (found != FOUND_NOTHING)
		return found;
	if (!may_be_node_port(settings, key->port) || is_loopback(&key->addr))
		return FOUND_NOTHING;
	node = node_addresses.lookup(&key->addr);
	if (!node || *node != NODE_OWN)
		return FOUND_NOTHING;
	*key = node_port_key(key, NODE_OWN);
	return find_frontend(key, set_id);
}

/*
 * What packets from outside get where that differs from what sockets get. Two Services may claim one
 * address: only the one that has it says something about it.
 */
static __always_inline bool open_outside_block(struct frontend_key *key, struct block *block)
{
	struct block other = {};
	enum found found;
	u32 set_id = 0;

	key->scope |= SCOPE_OUTSIDE;
	found = find_frontend(key, &set_id);
	if (found == FOUND_NOTHING)
		return true;
	if (found == FOUND_UNSTABLE || !open_block(set_id, &other))
		return false;
	if (other.owner == block->owner)
		*block = other;
	return true;
}

static __always_inline bool admits(u32 service_port, const struct address *source)
{
	struct source_range_key key = {
		.prefix = 160,
		.service_port = service_port,
		.addr = *source,
	};

	return source_ranges.lookup(&key) != 0;
}

static __always_inline enum outcome choose(const struct block *block, const struct address *source,
					   struct choice *choice)
{
	u32 slot = spread(bpf_get_prandom_u32(), block->count);
	enum outcome outcome = OUTCOME_TRANSLATED;
	struct affinity_key client;
	struct affinity *entry;
	u64 word = 0;

	if (!affinity_seconds(block))
		return choose_slot(block, slot, choice) ? outcome : OUTCOME_REFUSED_UNSTABLE;
	client = affinity_key(block, *(u64 *)&source->word[0], *(u64 *)&source->word[2]);
	entry = affinity_of(&client, block);
	if (entry)
		word = READ_WORD(&entry->backend);
	choice->previous = word;
	/* The hint is shared with other CPUs: only the word that was found there may be taken. */
	if (entry && find_slot(block, word, &entry->slot)) {
		slot = *(volatile u32 *)&entry->slot;
		outcome = OUTCOME_TRANSLATED_BY_AFFINITY;
	} else {
		word = slot_word(block->first + slot);
	}
	if (!take(block, word, slot, choice))
		return OUTCOME_REFUSED_UNSTABLE;
	if (outcome == OUTCOME_TRANSLATED_BY_AFFINITY)
		renew_affinity(entry);
	else
		remember_affinity(&client, choice);
	return outcome;
}

static __always_inline enum outcome resolve(struct config *settings, const struct packet *packet,
					    struct frontend_key *dialled, bool outside,
					    struct choice *choice)
{
	struct frontend_key key = *dialled;
	struct block block = {};
	enum found found;
	u32 set_id = 0;

	found = find_packet_set(settings, &key, &set_id);
	if (found == FOUND_NOTHING)
		return unserved(settings, dialled);
	/* A pod's packets get what its sockets would get. */
	if (found == FOUND_UNSTABLE || !open_block(set_id, &block) ||
	    (outside && !open_outside_block(&key, &block)))
		return OUTCOME_REFUSED_UNSTABLE;
	choice->owner = block.owner;
	if (is_restricted(&block) && !admits(block.owner >> 32, &packet->key.source))
		return OUTCOME_REFUSED_SOURCE_RANGE;
	if (!block.count)
		return outcome_when_empty(&block);
	/* Another proxy may have begun this connection, and goes on with it. */
	if (packet->key.protocol == PROTOCOL_TCP &&
	    (packet->tcp_flags & (TCP_SYN | TCP_ACK)) != TCP_SYN)
		return OUTCOME_PASSED_UNKNOWN_FLOW;
	return choose(&block, &packet->key.source, choice);
}

static __always_inline void await_departure(const struct flow_key *key, const struct flow *flow)
{
	struct flow_key leaving = {
		.source = key->source,
		.destination = flow->addr,
		.source_port = flow->other_port,
		.destination_port = flow->port,
		.protocol = key->protocol,
		.point = FLOW_EGRESS,
	};
	struct flow undecided = *flow;

	undecided.flags |= FLOW_UNDECIDED;
	flows.update(&leaving, &undecided);
}

/*
 * Keep both halves. A client may use one port for two frontends that lead to one backend; the
 * backend would take that for one connection, so the second one gets another port.
 */
static __always_inline bool keep_flow(const struct packet *packet, struct flow *flow)
{
	for (int i = 0; i < OTHER_PORT_ATTEMPTS; i++) {
		struct flow_key key = other_half(&packet->key, flow);
		struct flow back = mirrored(&packet->key, flow);
		struct flow *there;

		if (!flows.insert(&key, &back))
			return true;
		there = flows.lookup(&key);
		if (!there || is_over(&key, there) ||
		    (there->port == back.port && there->other_port == back.other_port &&
		     same_address(&there->addr, &back.addr)))
			return !flows.update(&key, &back);
		flow->other_port = HOST_16(HIGH_PORTS | (bpf_get_prandom_u32() & 0x3fff));
	}
	return false;
}

/* `flow`: what to do with this packet and those that follow, if the outcome is a translation. */
static __always_inline enum outcome begin(struct config *settings, const struct packet *packet,
					  struct frontend_key *dialled,
					  const struct outside_device *device,
					  struct choice *choice, struct flow *flow)
{
	bool pod = device->flags & DEVICE_POD_SIDE;
	enum outcome outcome = resolve(settings, packet, dialled, !pod, choice);
	struct backend *backend;
	u32 id;

	if (!is_translated(outcome))
		return outcome;
	flow->addr = choice->addr;
	flow->port = choice->port;
	flow->other_port = packet->key.source_port;
	flow->flags = pod ? FLOW_OF_CLIENT | FLOW_FROM_POD : FLOW_OF_CLIENT;
	flow->since = now();
	flow->last_seen = flow->since;
	flow->backend = choice->backend;
	flow->service_port = choice->owner >> 32;
	flow->service_port_incarnation = choice->owner;
	if (!keep_flow(packet, flow))
		return OUTCOME_REFUSED_NO_SOURCE_PORT;
	id = choice->backend >> 32;
	backend = backends.lookup(&id);
	if (pod || (backend && !(backend->state & BACKEND_LOCAL)))
		await_departure(&packet->key, flow);
	flows.update((struct flow_key *)&packet->key, flow);
	return outcome;
}

#endif
