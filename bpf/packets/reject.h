/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Answers in the place of a backend: a TCP reset, or ICMP port unreachable, so that the
 * client's connect() fails at once (as net/ipv4/netfilter/nf_reject_ipv4.c does).
 * The packet itself becomes the answer and goes back by the device it came from.
 */
#ifndef KUBESOCK_REJECT_H
#define KUBESOCK_REJECT_H

#define TIME_TO_LIVE 64
#define DONT_FRAGMENT __builtin_bswap16(0x4000)
#define IPV4_PLAIN 0x45
#define IPV6_PLAIN __builtin_bswap32(0x60000000)

struct ethernet_addresses {
	__u8 to[6];
	__u8 from[6];
};

struct icmp_header {
	__u8 type;
	__u8 code;
	__be16 check;
	__be32 rest;
};

/* What transport checksums cover of the addresses; the v4-mapped prefix adds up to nothing. */
struct pseudo_header {
	struct address source;
	struct address destination;
	__be32 length;
	__be32 protocol;
};

#define ICMP_UNREACHABLE 3
#define ICMP_PORT 3
#define ICMPV6_UNREACHABLE 1
#define ICMPV6_PORT 4
#define QUOTED 8 /* of what follows the IP header: the ports are in it */

static __always_inline u16 folded(u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

static __always_inline u32 sum_of(const void *bytes, u32 size, u32 sum)
{
	return bpf_csum_diff(0, 0, (void *)bytes, size, sum);
}

/*
 * Whether the device is still to compute the checksum at `check`. There is no field for it, but
 * a change of the payload changes the checksum now only where it will not be computed later.
 * What is in the packet there is overwritten.
 */
static __always_inline bool is_computed_later(struct __sk_buff *skb, u32 check)
{
	__be16 before = 0x1234, after = 0;

	bpf_skb_store_bytes(skb, check, &before, sizeof(before), BPF_F_RECOMPUTE_CSUM);
	bpf_l4_csum_replace(skb, check, 0, 1, 0);
	bpf_skb_load_bytes(skb, check, &after, sizeof(after));
	return before == after;
}

static __always_inline u32 pseudo_sum(const struct packet *packet, u32 length, u32 protocol)
{
	struct pseudo_header pseudo = {
		.source = packet->key.source,
		.destination = packet->key.destination,
		.length = HOST_32(length),
		.protocol = HOST_32(protocol),
	};

	return sum_of(&pseudo, sizeof(pseudo), 0);
}

/* From the client's point of view the frontend answers. */
static __always_inline bool put_headers(struct __sk_buff *skb, const struct packet *packet,
					u32 length, u8 protocol)
{
	if (packet->ipv4) {
		struct ipv4_header ip = {
			.version_and_length = IPV4_PLAIN,
			.length = HOST_16(sizeof(ip) + length),
			.fragment = DONT_FRAGMENT,
			.time_to_live = TIME_TO_LIVE,
			.protocol = protocol,
			.source = packet->key.destination.word[3],
			.destination = packet->key.source.word[3],
		};

		ip.check = ~folded(sum_of(&ip, sizeof(ip), 0));
		if (bpf_skb_store_bytes(skb, packet->network, &ip, sizeof(ip),
					BPF_F_RECOMPUTE_CSUM))
			return false;
	} else {
		struct ipv6_header ip = {
			.version = IPV6_PLAIN,
			.length = HOST_16(length),
			.next = protocol,
			.hop_limit = TIME_TO_LIVE,
			.source = packet->key.destination,
			.destination = packet->key.source,
		};

		if (bpf_skb_store_bytes(skb, packet->network, &ip, sizeof(ip),
					BPF_F_RECOMPUTE_CSUM))
			return false;
	}
	return true;
}

static __always_inline int send_back(struct __sk_buff *skb, u32 network)
{
	struct ethernet_addresses there, back;

	if (network) {
		if (bpf_skb_load_bytes(skb, 0, &there, sizeof(there)))
			return DROP;
		__builtin_memcpy(back.to, there.from, sizeof(back.to));
		__builtin_memcpy(back.from, there.to, sizeof(back.from));
		if (bpf_skb_store_bytes(skb, 0, &back, sizeof(back), 0))
			return DROP;
	}
	return bpf_redirect(skb->ifindex, 0);
}

static __always_inline bool is_plain(const struct packet *packet)
{
	u32 header = packet->ipv4 ? sizeof(struct ipv4_header) : sizeof(struct ipv6_header);

	return packet->transport == packet->network + header;
}

static __always_inline int reset(struct __sk_buff *skb, const struct packet *packet)
{
	struct tcp_header old, answer = {};
	u32 sum, header, check = packet->transport + TCP_CHECK;

	if (packet->tcp_flags & TCP_RST || !is_plain(packet) || packet->fragment)
		return DROP;
	if (bpf_skb_load_bytes(skb, packet->transport, &old, sizeof(old)))
		return DROP;
	header = (old.offset >> 4) * 4;
	if (header < sizeof(old) || header > packet->length)
		return DROP;
	answer.source = old.destination;
	answer.destination = old.source;
	answer.offset = sizeof(answer) / 4 << 4;
	answer.flags = TCP_RST;
	if (old.flags & TCP_ACK) {
		answer.sequence = old.acknowledgement;
	} else {
		u32 used =
			packet->length - header + !!(old.flags & TCP_SYN) + !!(old.flags & TCP_FIN);

		answer.flags |= TCP_ACK;
		answer.acknowledgement = HOST_32(HOST_32(old.sequence) + used);
	}
	if (bpf_skb_change_tail(skb, packet->transport + sizeof(answer), 0))
		return DROP;
	sum = pseudo_sum(packet, sizeof(answer), PROTOCOL_TCP);
	if (is_computed_later(skb, check))
		answer.check = folded(sum);
	else
		answer.check = ~folded(sum_of(&answer, sizeof(answer), sum));
	if (bpf_skb_store_bytes(skb, packet->transport, &answer, sizeof(answer),
				BPF_F_RECOMPUTE_CSUM) ||
	    !put_headers(skb, packet, sizeof(answer), PROTOCOL_TCP))
		return DROP;
	return send_back(skb, packet->network);
}

/* The sum over what is quoted of the client's packet. */
static __always_inline bool sum_of_quote(struct __sk_buff *skb, const struct packet *packet,
					 u32 *sum)
{
	__u8 quoted[QUOTED];

	if (!packet->ipv4) {
		struct ipv6_header ip;

		if (bpf_skb_load_bytes(skb, packet->network, &ip, sizeof(ip)))
			return false;
		*sum = sum_of(&ip, sizeof(ip), *sum);
	} /* that of a correct IPv4 header is nothing */
	if (bpf_skb_load_bytes(skb, packet->transport, quoted, sizeof(quoted)))
		return false;
	/* What is computed later starts from 0 then, and its whole adds up to nothing. */
	if (is_computed_later(skb, packet->transport + UDP_CHECK)) {
		__builtin_memset(quoted + UDP_CHECK, 0, 2);
		return !bpf_skb_store_bytes(skb, packet->transport, quoted, sizeof(quoted), 0);
	}
	*sum = sum_of(quoted, sizeof(quoted), *sum);
	return !bpf_skb_store_bytes(skb, packet->transport, quoted, sizeof(quoted),
				    BPF_F_RECOMPUTE_CSUM);
}

static __always_inline int unreachable(struct __sk_buff *skb, const struct packet *packet)
{
	u32 header = packet->ipv4 ? sizeof(struct ipv4_header) : sizeof(struct ipv6_header);
	u32 length = sizeof(struct icmp_header) + header + QUOTED, sum = 0;
	struct icmp_header icmp = {};
	u8 protocol = PROTOCOL_ICMP;

	if (packet->fragment || !is_plain(packet))
		return DROP;
	if (bpf_skb_change_tail(skb, packet->transport + QUOTED, 0))
		return DROP;
	if (packet->ipv4) {
		icmp.type = ICMP_UNREACHABLE;
		icmp.code = ICMP_PORT;
	} else {
		protocol = PROTOCOL_ICMPV6;
		icmp.type = ICMPV6_UNREACHABLE;
		icmp.code = ICMPV6_PORT;
		sum = pseudo_sum(packet, length, protocol);
	}
	sum = sum_of(&icmp, sizeof(icmp), sum);
	if (!sum_of_quote(skb, packet, &sum))
		return DROP;
	icmp.check = ~folded(sum);
	if (bpf_skb_adjust_room(skb, header + sizeof(icmp), BPF_ADJ_ROOM_MAC, 0))
		return DROP;
	if (!put_headers(skb, packet, length, protocol) ||
	    bpf_skb_store_bytes(skb, packet->network + header, &icmp, sizeof(icmp),
				BPF_F_RECOMPUTE_CSUM))
		return DROP;
	return send_back(skb, packet->network);
}

static __always_inline int reject(struct __sk_buff *skb, const struct packet *packet)
{
	if (packet->key.protocol == PROTOCOL_TCP)
		return reset(skb, packet);
	return unreachable(skb, packet);
}

#endif
