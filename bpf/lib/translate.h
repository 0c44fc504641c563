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
		client = affinity_key(block, bpf_get_netns_cookie(ctx), 0);
		entry = affinity_of(&client, block);
		if (entry) {
			backend = READ_WORD(&entry->backend);
			hint = &entry->slot;
		}
	} else if (kept) {
		backend = READ_WORD(&kept->backend_word);
		hint = &kept->slot;
	}
	choice->previous = backend;
	if (hint && find_slot(block, backend, hint)) {
		slot = *(volatile u32 *)hint;
		outcome = entry ? OUTCOME_TRANSLATED_BY_AFFINITY : OUTCOME_TRANSLATED_SAME_SOCKET;
	}
	if (bound_to_loopback(ctx, &dialled->addr) && !is_on_host(block, slot)) {
		slot = slot_for_loopback(block);
		if (slot == NO_SLOT)
			return OUTCOME_PASSED_BOUND_TO_LOOPBACK;
		/* Where this socket must go says nothing about the client's others. */
		return choose_slot(block, slot, choice) ? OUTCOME_TRANSLATED :
							  OUTCOME_REFUSED_UNSTABLE;
	}
	if (!choose_slot(block, slot, choice))
		return OUTCOME_REFUSED_UNSTABLE;
	if (outcome == OUTCOME_TRANSLATED_BY_AFFINITY)
		renew_affinity(entry);
	else if (affinity_seconds(block))
		remember_affinity(&client, choice);
	return outcome;
}

/* Everything but what the socket remembers: look-up, refusals, choice. */
static __always_inline enum outcome resolve(struct bpf_sock_addr *ctx, struct config *settings,
					    struct frontend_key *dialled,
					    struct datagram_origins *record, u32 random,
					    struct choice *choice)
{
	struct datagram_origin *kept = 0;
	struct block block = {};
	enum outcome outcome;
	enum found found;
	u32 set_id = 0;

	found = find_set(ctx, settings, dialled, &set_id);
	if (found == FOUND_NOTHING)
		outcome = unserved(settings, dialled);
	else if (found == FOUND_UNSTABLE || !open_block(set_id, &block))
		outcome = OUTCOME_REFUSED_UNSTABLE;
	else
		outcome = OUTCOME_TRANSLATED;
	if (outcome == OUTCOME_NOT_A_SERVICE)
		return outcome;
	if (is_left_alone(ctx, settings))
		return OUTCOME_PASSED_OPTED_OUT;
	if (outcome != OUTCOME_TRANSLATED)
		return outcome;
	choice->owner = block.owner;
	if (is_restricted(&block)) {
		outcome = admission(ctx, &dialled->addr, block.owner >> 32);
		if (outcome != OUTCOME_TRANSLATED)
			return outcome;
	}
	if (!block.count)
		return outcome_when_empty(&block);
	if (record)
		kept = datagram_of(record, dialled);
	return choose(ctx, dialled, &block, kept, random, choice);
}

static __always_inline void count(enum outcome outcome, const struct choice *choice)
{
	count_outcome(outcome);
	if (is_translated(outcome))
		count_chosen(choice->backend >> 32);
	else if (choice->owner && errno_of(outcome))
		count_refused(choice->owner >> 32);
}

#endif
