/* SPDX-License-Identifier: GPL-2.0-only */
/* From the bytes of a packet to what decides about it. What makes no sense here is left to the kernel. */
#ifndef KUBESOCK_PACKET_H
#define KUBESOCK_PACKET_H

#define PROTOCOL_ICMP 1
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define PROTOCOL_ICMPV6 58

#define ETHERTYPE_IPV4 __builtin_bswap16(0x0800)
#define ETHERTYPE_IPV6 __builtin_bswap16(0x86dd)
#define ETHERNET_HEADER 14
#define NO_HEADER 0

#define VLAN_ID 0x0fff
#define TO_THIS_HOST 0 /* PACKET_HOST */

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

struct ipv4_header {
	__u8 version_and_length;
	__u8 service;
	__be16 length;
	__be16 identification;
	__be16 fragment;
	__u8 time_to_live;
	__u8 protocol;
	__be16 check;
	__be32 source;
	__be32 destination;
};

struct ipv6_header {
	__be32 version;
	__be16 length;
	__u8 next;
	__u8 hop_limit;
	struct address source;
	struct address destination;
};

struct tcp_header {
	__be16 source;
	__be16 destination;
	__be32 sequence;
	__be32 acknowledgement;
	__u8 offset;
	__u8 flags;
	__be16 window;
	__be16 check;
	__be16 urgent;
};

#define IPV4_FRAGMENT_OFFSET 0x1fff
#define IPV4_MORE_FRAGMENTS 0x2000

#define IPV6_HOP_BY_HOP 0
#define IPV6_FRAGMENT 44
#define IPV6_DESTINATION_OPTIONS 60
#define IPV6_FRAGMENT_OFFSET 0xfff8
#define IPV6_MORE_FRAGMENTS 1
#define IPV6_EXTENSIONS 4 /* how many are followed */

enum fragment_kind {
	WHOLE = 0,
	FIRST_FRAGMENT,
	LATER_FRAGMENT, /* has no ports of its own */
};

struct packet {
	struct flow_key key;
	u32 network; /* offset of the IP header */
	u32 transport; /* of what follows it */
	u32 length; /* of that */
	u32 identification; /* of fragments */
	u8 tcp_flags;
	u8 fragment;
	u8 ipv4;
};

static __always_inline void map_ipv4(struct address *to, __be32 from)
{
	to->word[0] = 0;
	to->word[1] = 0;
	to->word[2] = MAPPED_PREFIX;
	to->word[3] = from;
}

static __always_inline bool read_ipv4(struct __sk_buff *skb, struct packet *packet)
{
	struct ipv4_header ip;
	u32 header, total;
	u16 fragment;

	if (bpf_skb_load_bytes(skb, packet->network, &ip, sizeof(ip)))
		return false;
	header = (ip.version_and_length & 0xf) * 4;
	total = HOST_16(ip.length);
	if (ip.version_and_length >> 4 != 4 || header < sizeof(ip) || total < header)
		return false;
	packet->ipv4 = 1;
	packet->key.protocol = ip.protocol;
	map_ipv4(&packet->key.source, ip.source);
	map_ipv4(&packet->key.destination, ip.destination);
	packet->transport = packet->network + header;
	packet->length = total - header;
	fragment = HOST_16(ip.fragment);
	packet->identification = ip.identification;
	if (fragment & IPV4_FRAGMENT_OFFSET)
		packet->fragment = LATER_FRAGMENT;
	else if (fragment & IPV4_MORE_FRAGMENTS)
		packet->fragment = FIRST_FRAGMENT;
	return true;
}

/* Routing headers, and whatever else hides the last destination or the ports, are nothing for us. */
static __always_inline bool read_ipv6(struct __sk_buff *skb, struct packet *packet)
{
	struct ipv6_header ip;
	u32 at, end;
	u8 next;

	if (bpf_skb_load_bytes(skb, packet->network, &ip, sizeof(ip)))
		return false;
	if ((HOST_32(ip.version) >> 28) != 6)
		return false;
	packet->key.source = ip.source;
	packet->key.destination = ip.destination;
	at = packet->network + sizeof(ip);
	end = at + HOST_16(ip.length);
	next = ip.next;
	for (int i = 0; i < IPV6_EXTENSIONS; i++) {
		u8 extension[8];
		u16 offset;

		if (next != IPV6_HOP_BY_HOP && next != IPV6_DESTINATION_OPTIONS &&
		    next != IPV6_FRAGMENT)
			break;
		if (bpf_skb_load_bytes(skb, at, extension, sizeof(extension)))
			return false;
		if (next != IPV6_FRAGMENT) {
			at += 8 + extension[1] * 8;
			next = extension[0];
			continue;
		}
		offset = extension[2] << 8 | extension[3];
		packet->identification = *(u32 *)&extension[4];
		if (offset & IPV6_FRAGMENT_OFFSET)
			packet->fragment = LATER_FRAGMENT;
		else if (offset & IPV6_MORE_FRAGMENTS)
			packet->fragment = FIRST_FRAGMENT;
		at += 8;
		next = extension[0];
		if (packet->fragment)
			break;
	}
	packet->key.protocol = next;
	packet->transport = at;
	packet->length = end - at;
	return end >= at;
}

static __always_inline struct fragment_key fragment_key(const struct packet *packet)
{
	struct fragment_key key = {
		.source = packet->key.source,
		.destination = packet->key.destination,
		.identification = packet->identification,
		.protocol = packet->key.protocol,
	};

	return key;
}

static __always_inline bool recall_ports(struct packet *packet)
{
	struct fragment_key key = fragment_key(packet);
	struct fragment *first = fragments.lookup(&key);

	if (!first)
		return false;
	packet->key.source_port = first->source_port;
	packet->key.destination_port = first->destination_port;
	return true;
}

/* For the fragments that follow. Called with what the packet was before anything in it changed. */
static __always_inline void remember_ports(const struct packet *packet)
{
	struct fragment_key key = fragment_key(packet);
	struct fragment first = {
		.source_port = packet->key.source_port,
		.destination_port = packet->key.destination_port,
	};

	fragments.update(&key, &first);
}

static __always_inline bool read_ports(struct __sk_buff *skb, struct packet *packet)
{
	struct tcp_header header;

	if (packet->fragment == LATER_FRAGMENT)
		return recall_ports(packet);
	if (packet->key.protocol == PROTOCOL_TCP) {
		if (packet->length < sizeof(header) ||
		    bpf_skb_load_bytes(skb, packet->transport, &header, sizeof(header)))
			return false;
		packet->tcp_flags = header.flags;
	} else if (packet->length < 8 || bpf_skb_load_bytes(skb, packet->transport, &header, 8)) {
		return false;
	}
	packet->key.source_port = header.source;
	packet->key.destination_port = header.destination;
	return true;
}

static __always_inline bool is_icmp(const struct packet *packet)
{
	return packet->key.protocol == (packet->ipv4 ? PROTOCOL_ICMP : PROTOCOL_ICMPV6);
}

/* False: nothing for us. `network`: length of the device's own header. */
static __always_inline bool read_packet(struct __sk_buff *skb, u32 network, u8 point,
					struct packet *packet)
{
	/* A tagged packet comes by once more, without the tag, at the device of its VLAN. */
	if (skb->vlan_present && skb->vlan_tci & VLAN_ID)
		return false;
	packet->network = network;
	packet->key.point = point;
	if (skb->protocol == ETHERTYPE_IPV4) {
		if (!read_ipv4(skb, packet))
			return false;
	} else if (skb->protocol != ETHERTYPE_IPV6 || !read_ipv6(skb, packet)) {
		return false;
	}
	if (packet->key.protocol == PROTOCOL_TCP || packet->key.protocol == PROTOCOL_UDP)
		return read_ports(skb, packet);
	return is_icmp(packet) && !packet->fragment;
}

#endif
