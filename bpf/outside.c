/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Services for packets: clients outside the cluster, and workloads whose system calls no hook sees.
 *
 * At ingress of a device the destination of a packet is changed, at egress the source, as netfilter does
 * it before and behind routing: the kernel routes, forwards, filters and fragments what lies between.
 *
 * The loader defines what it does for translate.c; includes are expanded alike.
 */
#include <uapi/linux/bpf.h>

/* Verdicts of tc (include/uapi/linux/pkt_cls.h). GO_ON leaves the rest to the programs behind ours. */
#define GO_ON -1
#define DROP 2

#include "contract.h"
#include "maps.h"
#include "packets/maps.h"
#include "lib/address.h"
#include "lib/clock.h"
#include "lib/counters.h"
#include "lib/lookup.h"
#include "lib/choice.h"
#include "lib/affinity.h"
#include "lib/events.h"
#include "lib/verdict.h"
#include "packets/packet.h"
#include "packets/flow.h"
#include "packets/rewrite.h"
#include "packets/begin.h"
#include "packets/depart.h"
#include "packets/reject.h"
#include "packets/error.h"
#include "packets/told.h"

static __always_inline int refuse(struct __sk_buff *skb, const struct packet *packet,
				  enum outcome outcome)
{
	switch (outcome) {
	case OUTCOME_REFUSED_NO_ENDPOINTS:
	case OUTCOME_REFUSED_UNDEFINED_PORT:
	case OUTCOME_REFUSED_UNALLOCATED_ADDRESS:
		return reject(skb, packet);
	case OUTCOME_PASSED_OTHER_PROXY:
	case OUTCOME_PASSED_UNKNOWN_FLOW:
		return GO_ON;
	default:
		return DROP;
	}
}

static __always_inline int arrive(struct __sk_buff *skb, u32 network)
{
	struct packet packet = {};
	struct flow made = {};
	struct flow *flow;

	if (skb->pkt_type != TO_THIS_HOST || !read_packet(skb, network, FLOW_INGRESS, &packet))
		return GO_ON;
	if (is_icmp(&packet))
		return translate_error(skb, &packet, true);
	flow = flows.lookup(&packet.key);
	if (flow && !begins_anew(&packet, flow)) {
		follow(&packet, flow);
	} else {
		struct frontend_key dialled = {
			.addr = packet.key.destination,
			.port = packet.key.destination_port,
			.protocol = packet.key.protocol,
		};
		struct outside_device *device = device_of(skb->ifindex);
		struct config *settings = configuration();
		struct choice choice = {};
		enum outcome outcome;

		if (!device || !settings)
			return GO_ON;
		outcome = begin(settings, &packet, &dialled, device, &choice, &made);
		if (outcome == OUTCOME_NOT_A_SERVICE)
			return GO_ON;
		tell(settings, &packet, outcome, &dialled, &choice);
		if (!is_translated(outcome))
			return refuse(skb, &packet, outcome);
		flow = &made;
	}
	return rewrite(skb, &packet, flow, true) ? GO_ON : DROP;
}

static __always_inline int leave(struct __sk_buff *skb, u32 network)
{
	struct packet packet = {};
	struct flow decided;
	struct flow *flow;

	if (!read_packet(skb, network, FLOW_EGRESS, &packet))
		return GO_ON;
	if (is_icmp(&packet))
		return translate_error(skb, &packet, false);
	flow = flows.lookup(&packet.key);
	if (!flow)
		return GO_ON;
	if (flow->flags & FLOW_UNDECIDED) {
		struct outside_device *device = device_of(skb->ifindex);
		struct config *settings = configuration();

		if (!device || !settings || !needs_source(skb, device, flow))
			return GO_ON;
		decided = *flow;
		if (!depart(settings, &packet, device, &decided)) {
			count_outside(OUTCOME_REFUSED_NO_SOURCE_PORT);
			return DROP;
		}
		flows.update(&packet.key, &decided);
		flow = &decided;
	} else {
		follow(&packet, flow);
	}
	return rewrite(skb, &packet, flow, false) ? GO_ON : DROP;
}

/* Devices with an Ethernet header, and those without any. */
int arrive_ether(struct __sk_buff *skb)
{
	return arrive(skb, ETHERNET_HEADER);
}

int leave_ether(struct __sk_buff *skb)
{
	return leave(skb, ETHERNET_HEADER);
}

int arrive_plain(struct __sk_buff *skb)
{
	return arrive(skb, NO_HEADER);
}

int leave_plain(struct __sk_buff *skb)
{
	return leave(skb, NO_HEADER);
}
