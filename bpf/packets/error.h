/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ICMP errors quote a packet that was sent: one about a flow is led to who sent it, and quotes what
 * that one sent. Path MTU discovery depends on it (RFC 1191, RFC 8201).
 */
#ifndef KUBESOCK_ERROR_H
#define KUBESOCK_ERROR_H

#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER 12
#define ICMPV6_LAST_ERROR 4
#define ICMP_CHECK 2

struct quoted_ports {
	__be16 source;
	__be16 destination;
	__be32 rest;
};

static __always_inline bool is_error(const struct packet *packet, u8 type)
{
	if (packet->ipv4)
		return type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED ||
		       type == ICMP_PARAMETER;
	return type >= ICMPV6_UNREACHABLE && type <= ICMPV6_LAST_ERROR;
}

/* The flow whose packets go the other way than the quoted one. */
static __always_inline struct flow *flow_of_quote(const struct packet *packet,
						  const struct address *source,
						  const struct address *destination, u8 protocol,
						  const struct quoted_ports *ports,
						  struct flow_key *key)
{
	struct flow *flow;

	if (protocol != PROTOCOL_TCP && protocol != PROTOCOL_UDP)
		return 0;
	key->source = *destination;
	key->destination = *source;
	key->source_port = ports->destination;
	key->destination_port = ports->source;
	key->protocol = protocol;
	key->point = packet->key.point;
	flow = flows.lookup(key);
	return flow && !(flow->flags & FLOW_UNDECIDED) ? flow : 0;
}

static __always_inline void requote_ports(struct quoted_ports *ports, const struct flow *flow,
					  bool at_ingress)
{
	ports->source = at_ingress ? flow->port : flow->other_port;
	ports->destination = at_ingress ? flow->other_port : flow->port;
}

/* `old`, as it lies in the packet at `at`, becomes `new`. */
static __always_inline bool put_quote(struct __sk_buff *skb, const struct packet *packet, u32 at,
				      void *old, void *new, u32 size)
{
	u32 diff = bpf_csum_diff(old, size, new, size, 0);

	return !bpf_l4_csum_replace(skb, packet->transport + ICMP_CHECK, 0, diff, 0) &&
	       !bpf_skb_store_bytes(skb, at, new, size, 0);
}

static __always_inline bool put_quoted_ports(struct __sk_buff *skb, const struct packet *packet,
					     u32 at, struct quoted_ports *ports,
					     const struct flow *flow, bool at_ingress)
{
	struct quoted_ports old = *ports;

	requote_ports(ports, flow, at_ingress);
	return put_quote(skb, packet, at, &old, ports, sizeof(old));
}

/* Who the error goes to (ingress), or who seems to send it. */
static __always_inline bool put_outer(struct __sk_buff *skb, const struct packet *packet,
				      const struct flow *flow, bool at_ingress, u32 check)
{
	return put_address(skb, packet, at_ingress,
			   at_ingress ? &packet->key.destination : &packet->key.source, &flow->addr,
			   check, 0);
}

static __always_inline int translate_ipv4_error(struct __sk_buff *skb, struct packet *packet,
						bool at_ingress)
{
	u32 at = packet->transport + sizeof(struct icmp_header), size;
	struct address source, destination;
	struct quoted_ports ports;
	struct ipv4_header old, new;
	struct flow_key key = {};
	struct flow *flow;

	if (bpf_skb_load_bytes(skb, at, &old, sizeof(old)))
		return GO_ON;
	size = (old.version_and_length & 0xf) * 4;
	if (old.version_and_length >> 4 != 4 || size < sizeof(old) ||
	    HOST_16(old.fragment) & IPV4_FRAGMENT_OFFSET ||
	    bpf_skb_load_bytes(skb, at + size, &ports, sizeof(ports)))
		return GO_ON;
	map_ipv4(&source, old.source);
	map_ipv4(&destination, old.destination);
	flow = flow_of_quote(packet, &source, &destination, old.protocol, &ports, &key);
	if (!flow || (at_ingress && !same_address(&packet->key.destination, &source)))
		return GO_ON;
	new = old;
	if (at_ingress)
		new.source = flow->addr.word[3];
	else
		new.destination = flow->addr.word[3];
	/* Its checksum changes by what the address does, so that the whole adds up as before (RFC 1624). */
	new.check = ~folded(
		bpf_csum_diff((void *)&old.source, 8, (void *)&new.source, 8, (u16)~old.check));
	if (!put_quote(skb, packet, at, &old, &new, sizeof(old)) ||
	    !put_quoted_ports(skb, packet, at + size, &ports, flow, at_ingress) ||
	    !put_outer(skb, packet, flow, at_ingress, 0))
		return DROP;
	return GO_ON;
}

static __always_inline int translate_ipv6_error(struct __sk_buff *skb, struct packet *packet,
						bool at_ingress)
{
	u32 at = packet->transport + sizeof(struct icmp_header),
	    end = at + sizeof(struct ipv6_header);
	struct quoted_ports ports, fragment;
	struct ipv6_header old, new;
	struct flow_key key = {};
	struct flow *flow;
	u8 protocol;

	if (bpf_skb_load_bytes(skb, at, &old, sizeof(old)))
		return GO_ON;
	protocol = old.next;
	if (protocol == IPV6_FRAGMENT) {
		/* The first bytes of it: what follows, reserved, offset. */
		if (bpf_skb_load_bytes(skb, end, &fragment, sizeof(fragment)) ||
		    HOST_16(fragment.destination) & IPV6_FRAGMENT_OFFSET)
			return GO_ON;
		protocol = HOST_16(fragment.source) >> 8;
		end += sizeof(fragment);
	}
	if (bpf_skb_load_bytes(skb, end, &ports, sizeof(ports)))
		return GO_ON;
	flow = flow_of_quote(packet, &old.source, &old.destination, protocol, &ports, &key);
	if (!flow || (at_ingress && !same_address(&packet->key.destination, &old.source)))
		return GO_ON;
	new = old;
	if (at_ingress)
		new.source = flow->addr;
	else
		new.destination = flow->addr;
	if (!put_quote(skb, packet, at, &old, &new, sizeof(old)) ||
	    !put_quoted_ports(skb, packet, end, &ports, flow, at_ingress) ||
	    !put_outer(skb, packet, flow, at_ingress, packet->transport + ICMP_CHECK))
		return DROP;
	return GO_ON;
}

static __always_inline int translate_error(struct __sk_buff *skb, struct packet *packet,
					   bool at_ingress)
{
	u8 type;

	if (bpf_skb_load_bytes(skb, packet->transport, &type, sizeof(type)) ||
	    !is_error(packet, type))
		return GO_ON;
	return packet->ipv4 ? translate_ipv4_error(skb, packet, at_ingress) :
			      translate_ipv6_error(skb, packet, at_ingress);
}

#endif
