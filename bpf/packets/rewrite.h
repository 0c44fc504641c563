/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Puts addresses and ports into a packet. The kernel's helpers know what must happen to a
 * checksum that the device computes later, or computed already, so nothing is written past them.
 */
#ifndef KUBESOCK_REWRITE_H
#define KUBESOCK_REWRITE_H

#define TCP_CHECK 16
#define UDP_CHECK 6
#define IPV4_CHECK 10
#define IPV4_SOURCE 12
#define IPV4_DESTINATION 16
#define IPV6_SOURCE 8
#define IPV6_DESTINATION 24

static __always_inline u32 difference(const struct address *from, const struct address *to)
{
	return bpf_csum_diff((void *)from, sizeof(*from), (void *)to, sizeof(*to), 0);
}

/* `check`: offset of the checksum that covers the addresses too, 0: none here. */
static __always_inline bool put_address(struct __sk_buff *skb, const struct packet *packet,
					bool destination, const struct address *from,
					const struct address *to, u32 check, u64 flags)
{
	u32 at = packet->network;

	if (packet->ipv4) {
		if (check && bpf_l4_csum_replace(skb, check, from->word[3], to->word[3],
						 BPF_F_PSEUDO_HDR | flags | 4))
			return false;
		if (bpf_l3_csum_replace(skb, at + IPV4_CHECK, from->word[3], to->word[3], 4))
			return false;
		at += destination ? IPV4_DESTINATION : IPV4_SOURCE;
		return !bpf_skb_store_bytes(skb, at, &to->word[3], 4, 0);
	}
	if (check &&
	    bpf_l4_csum_replace(skb, check, 0, difference(from, to), BPF_F_PSEUDO_HDR | flags))
		return false;
	at += destination ? IPV6_DESTINATION : IPV6_SOURCE;
	return !bpf_skb_store_bytes(skb, at, to, sizeof(*to), BPF_F_RECOMPUTE_CSUM);
}

static __always_inline bool put_port(struct __sk_buff *skb, u32 at, __be16 from, __be16 to,
				     u32 check, u64 flags)
{
	if (from == to)
		return true;
	return !bpf_l4_csum_replace(skb, check, from, to, flags | 2) &&
	       !bpf_skb_store_bytes(skb, at, &to, sizeof(to), 0);
}

/* What the flow says, in place. False: the packet may be half changed and must not go on. */
static __always_inline bool rewrite(struct __sk_buff *skb, const struct packet *packet,
				    const struct flow *flow, bool destination)
{
	bool udp = packet->key.protocol == PROTOCOL_UDP;
	u32 check = packet->transport + (udp ? UDP_CHECK : TCP_CHECK);
	u64 flags = udp ? BPF_F_MARK_MANGLED_0 : 0;
	const struct address *from = destination ? &packet->key.destination : &packet->key.source;
	__be16 to_source = destination ? flow->other_port : flow->port;
	__be16 to_destination = destination ? flow->port : flow->other_port;

	if (packet->fragment == LATER_FRAGMENT)
		return put_address(skb, packet, destination, from, &flow->addr, 0, 0);
	if (packet->fragment == FIRST_FRAGMENT)
		remember_ports(packet);
	return put_address(skb, packet, destination, from, &flow->addr, check, flags) &&
	       put_port(skb, packet->transport, packet->key.source_port, to_source, check, flags) &&
	       put_port(skb, packet->transport + 2, packet->key.destination_port, to_destination,
			check, flags);
}

#endif
