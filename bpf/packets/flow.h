/* SPDX-License-Identifier: GPL-2.0-only */
/* Connections from outside: how long they live, and how both halves of a pair find each other. */
#ifndef KUBESOCK_FLOW_H
#define KUBESOCK_FLOW_H

#define BOTH_FINS (FLOW_SEEN_FIN_OF_CLIENT | FLOW_SEEN_FIN_OF_BACKEND)

static __always_inline struct flow_key other_half(const struct flow_key *key,
						  const struct flow *flow)
{
	struct flow_key other = { .protocol = key->protocol };

	if (key->point == FLOW_INGRESS) {
		other.point = FLOW_EGRESS;
		other.source = flow->addr;
		other.source_port = flow->port;
		other.destination = key->source;
		other.destination_port = flow->other_port;
	} else {
		other.point = FLOW_INGRESS;
		other.source = key->destination;
		other.source_port = flow->other_port;
		other.destination = flow->addr;
		other.destination_port = flow->port;
	}
	return other;
}

/* What the other half holds when this one is `flow` under `key`. */
static __always_inline struct flow mirrored(const struct flow_key *key, const struct flow *flow)
{
	struct flow other = *flow;

	other.flags ^= FLOW_OF_CLIENT;
	if (key->point == FLOW_INGRESS) {
		other.addr = key->destination;
		other.port = key->destination_port;
		other.other_port = key->source_port;
	} else {
		other.addr = key->source;
		other.port = key->source_port;
		other.other_port = key->destination_port;
	}
	return other;
}

static __always_inline u64 flow_seconds(u8 protocol, u8 seen)
{
	if (protocol == PROTOCOL_UDP)
		return seen & FLOW_SEEN_REPLY ? FLOW_SECONDS_UDP : FLOW_SECONDS_UDP_ONE_WAY;
	if (seen & FLOW_SEEN_RESET)
		return FLOW_SECONDS_RESET;
	if ((seen & BOTH_FINS) == BOTH_FINS)
		return FLOW_SECONDS_CLOSED;
	if (seen & BOTH_FINS)
		return FLOW_SECONDS_CLOSING;
	return seen & FLOW_SEEN_REPLY ? FLOW_SECONDS_TCP : FLOW_SECONDS_TCP_ONE_WAY;
}

static __always_inline bool is_closed(const struct flow *flow)
{
	return flow->seen & FLOW_SEEN_RESET || (flow->seen & BOTH_FINS) == BOTH_FINS;
}

/* Its place may be taken by a new one. */
static __always_inline bool is_over(const struct flow_key *key, const struct flow *flow)
{
	return is_closed(flow) ||
	       now() - flow->last_seen > flow_seconds(key->protocol, flow->seen) * SECOND;
}

/* Whether this packet begins something new where `flow` was. */
static __always_inline bool begins_anew(const struct packet *packet, const struct flow *flow)
{
	if (!(flow->flags & FLOW_OF_CLIENT))
		return false;
	if (packet->key.protocol == PROTOCOL_TCP &&
	    (packet->tcp_flags & (TCP_SYN | TCP_ACK)) != TCP_SYN)
		return false;
	return is_over(&packet->key, flow);
}

static __always_inline u8 seen_now(const struct packet *packet, const struct flow *flow)
{
	bool of_client = flow->flags & FLOW_OF_CLIENT;
	u8 seen = flow->seen;

	if (!of_client)
		seen |= FLOW_SEEN_REPLY;
	if (packet->tcp_flags & TCP_FIN)
		seen |= of_client ? FLOW_SEEN_FIN_OF_CLIENT : FLOW_SEEN_FIN_OF_BACKEND;
	if (packet->tcp_flags & TCP_RST)
		seen |= FLOW_SEEN_RESET;
	return seen;
}

/*
 * Once a second, and when the packet tells something new. Both halves are touched, so that
 * the kernel's LRU ages them together, and one that it took nevertheless comes back.
 */
static __always_inline void follow(const struct packet *packet, struct flow *flow)
{
	u8 seen = seen_now(packet, flow);
	struct flow *other;
	struct flow_key key;
	u64 time = now();

	if (seen == flow->seen && time - flow->last_seen < SECOND)
		return;
	flow->seen = seen;
	flow->last_seen = time;
	key = other_half(&packet->key, flow);
	other = flows.lookup(&key);
	if (other) {
		other->seen = seen;
		other->last_seen = time;
	} else {
		struct flow lost = mirrored(&packet->key, flow);

		flows.insert(&key, &lost);
	}
}

#endif
