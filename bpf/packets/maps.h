/* SPDX-License-Identifier: GPL-2.0-only */
/* The maps that only packets need; who writes them, as in ../maps.h. */
#ifndef KUBESOCK_PACKET_MAPS_H
#define KUBESOCK_PACKET_MAPS_H

/* Here; the agent removes what is over. */
PINNED_MAP("lru_hash", struct flow_key, struct flow, flows);

/* Here. */
PINNED_MAP("lru_hash", struct fragment_key, struct fragment, fragments);

/* Agent. A miss: not one of ours any more. */
PINNED_MAP("hash", u32, struct outside_device, outside_devices);

/* Here. New flows per outcome. */
PINNED_MAP("percpu_array", u32, u64, outside_outcomes);

#endif
