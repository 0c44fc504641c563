/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef KUBESOCK_COUNTERS_H
#define KUBESOCK_COUNTERS_H

#define CHOSEN_SHARD_MASK 1

static __always_inline void count_outcome(enum outcome outcome)
{
	u32 index = outcome;
	u64 *count = outcomes.lookup(&index);

	if (count)
		*count += 1;
}

/* One word for all CPUs would bounce between them, one for each would cost hundreds of MB on large machines. */
static __always_inline void count_chosen(u32 backend_id)
{
	u32 index = (bpf_get_smp_processor_id() & CHOSEN_SHARD_MASK) * MAX_BACKENDS + backend_id;
	u64 *count = chosen.lookup(&index);

	if (count)
		__sync_fetch_and_add(count, 1);
}

static __always_inline void count_refused(u32 service_port)
{
	u64 *count = refused.lookup(&service_port);

	if (count)
		__sync_fetch_and_add(count, 1);
}

#endif
