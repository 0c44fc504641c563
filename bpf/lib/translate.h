/* SPDX-License-Identifier: GPL-2.0-only */
/* What connect and sendmsg share: from a dialled address to a backend, or to a refusal. */
#ifndef KUBESOCK_TRANSLATE_H
#define KUBESOCK_TRANSLATE_H

#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17

static __always_inline bool is_served(u32 protocol)
{
	return protocol == PROTOCOL_TCP || protocol == PROTOCOL_UDP;
}

/*
 * A backend of the block: the client's by affinity, else the one that the socket
 * already talks to (`kept`, may be 0), else one by `random`.
 */
static __always_inline enum outcome choose(struct bpf_sock_addr *ctx,
					   const struct frontend_key *dialled,
					   const struct block *block, struct datagram_origin *kept,
					   u32 random, struct choice *choice)
{
	enum outcome outcome = OUTCOME_TRANSLATED;
	u32 slot = spread(random, block->count);
	struct affinity_key client = {};
	struct affinity *entry = 0;
	u32 *hint = 0;
	u64 backend = 0;

	if (affinity_seconds(block)) {
		client = client_of(ctx, block);
		entry = affinity_of(&client, block);
		if (entry) {
			backend = READ_WORD(&entry->backend);
			hint = &entry->slot;
		}
	} else if (kept) {
		backend = READ_WORD(&kept->backend_word);
		hint = &kept->slot;
	}
	if (hint && find_slot(block, backend, hint)) {
		slot = *(volatile u32 *)hint;
		outcome = entry ? OUTCOME_TRANSLATED_BY_AFFINITY : OUTCOME_TRANSLATED_SAME_SOCKET;
	}
	if (bound_to_loopback(ctx, &dialled->addr)) {
		slot = slot_for_loopback(block);
		if (slot == NO_SLOT)
			return OUTCOME_PASSED_BOUND_TO_LOOPBACK;
	}
	if (!choose_slot(block, slot, choice))
		return OUTCOME_REFUSED_UNSTABLE;
	if (outcome == OUTCOME_TRANSLATED_BY_AFFINITY)
		renew_affinity(entry);
	else if (affinity_seconds(block))
		remember_affinity(&client, choice);
	return outcome;
}

static __always_inline void count(enum outcome outcome, const struct choice *choice)
{
	count_outcome(outcome);
	if (is_translated(outcome))
		count_chosen(choice->backend >> 32);
	else if (choice->owner)
		count_refused(choice->owner >> 32);
}

#endif
