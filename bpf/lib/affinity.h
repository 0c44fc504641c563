/* SPDX-License-Identifier: GPL-2.0-only */
/* Session affinity ClientIP: a client (a network namespace, or where packets come from) stays on its backend. */
#ifndef KUBESOCK_AFFINITY_H
#define KUBESOCK_AFFINITY_H

#include "lib/earlier.h"

static __always_inline struct affinity_key affinity_key(const struct block *block, u64 client,
							u64 client_low)
{
	struct affinity_key key = {
		.service_port = block->owner >> 32,
		.incarnation = block->owner,
		.client = client,
		.client_low = client_low,
	};

	return key;
}

/* The client's entry while it is fresh. */
static __always_inline struct affinity *affinity_of(struct affinity_key *client,
						    const struct block *block)
{
	struct affinity *entry = affinity.lookup(client);

	if (!entry)
		entry = adopt_affinity(client);
	if (!entry || now() / SECOND - entry->last_used > affinity_seconds(block))
		return 0;
	return entry;
}

/* In place and once a second: an update would take the bucket's lock at every connect. */
static __always_inline void renew_affinity(struct affinity *entry)
{
	u64 second = now() / SECOND;

	if (entry->last_used != second)
		entry->last_used = second;
}

static __always_inline void remember_affinity(struct affinity_key *client,
					      const struct choice *choice)
{
	struct affinity entry = {
		.backend = choice->backend,
		.last_used = now() / SECOND,
		.slot = choice->slot,
	};

	affinity.update(client, &entry);
}

#endif
