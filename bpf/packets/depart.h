/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A packet that leaves for a backend which would answer the client past this node: it
 * gets a source address of the device, and a port of a range that the host does not use.
 */
#ifndef KUBESOCK_DEPART_H
#define KUBESOCK_DEPART_H

#define PORT_ATTEMPTS 64

/* Behind the device that it leaves by, or back where it came from, the way back would miss this node. */
static __always_inline bool needs_source(struct __sk_buff *skb, const struct outside_device *device,
					 const struct flow *flow)
{
	if (skb->ingress_ifindex == skb->ifindex)
		return true;
	return !(device->flags & DEVICE_POD_SIDE) && !(flow->flags & FLOW_FROM_POD);
}

static __always_inline bool source_on(const struct outside_device *device, bool ipv4,
				      struct address *source)
{
	*source = ipv4 ? device->ipv4 : device->ipv6;
	return source->word[3] || source->word[2] || source->word[0];
}

/* Decides an undecided flow; false: no address or port is left. */
static __always_inline bool depart(struct config *settings, const struct packet *packet,
				   const struct outside_device *device, struct flow *flow)
{
	u32 ports = settings->source_port_high - settings->source_port_low + 1;
	u16 wanted = HOST_16(packet->key.source_port);

	if (settings->source_port_high < settings->source_port_low)
		return false;
	if (!source_on(device, packet->ipv4, &flow->addr))
		return false;
	flow->flags &= ~FLOW_UNDECIDED;
	flow->other_port = packet->key.destination_port;
	flow->seen = 0;
	if (wanted < settings->source_port_low || wanted > settings->source_port_high)
		wanted = settings->source_port_low + spread(bpf_get_prandom_u32(), ports);
	for (int i = 0; i < PORT_ATTEMPTS; i++) {
		struct flow_key key;
		struct flow back;
		struct flow *there;

		flow->port = HOST_16(wanted);
		key = other_half(&packet->key, flow);
		back = mirrored(&packet->key, flow);
		if (!flows.insert(&key, &back))
			return true;
		there = flows.lookup(&key);
		if (!there || is_over(&key, there))
			return !flows.update(&key, &back);
		wanted = settings->source_port_low + spread(bpf_get_prandom_u32(), ports);
	}
	return false;
}

#endif
