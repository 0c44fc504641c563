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

/* Whether a socket connects, or sends single datagrams. */
enum way {
	WAY_CONNECT,
	WAY_DATAGRAM,
};

/*
 * A backend of the block: the client's by affinity, else the one that the socket
 * already talks to (`kept`, may be 0), else any.
 */
static __always_inline enum outcome choose(struct bpf_sock_addr *ctx,
					   const struct frontend_key *dialled,
					   const struct block *block, enum way way,
					   struct datagram_origin *kept, struct choice *choice)
{
	enum outcome outcome = OUTCOME_TRANSLATED;
	struct affinity_key client = {};
	struct affinity *entry = 0;
	u32 *hint = 0, slot;
	u64 word = 0;

	if (affinity_seconds(block)) {
		client = affinity_key(block, bpf_get_netns_cookie(ctx), 0);
		entry = affinity_of(&client, block);
		if (entry) {
			word = READ_WORD(&entry->backend);
			hint = &entry->slot;
		}
	} else if (kept) {
		word = READ_WORD(&kept->backend_word);
		hint = &kept->slot;
	}
	choice->previous = word;
	/* Else the verifier follows "no word yet" through all that comes, and takes twice the steps. */
	asm volatile("" : "+r"(word));
	if (hint && find_slot(block, word, hint)) {
		slot = *(volatile u32 *)hint;
		outcome = entry ? OUTCOME_TRANSLATED_BY_AFFINITY : OUTCOME_TRANSLATED_SAME_SOCKET;
	} else {
		slot = spread(way == WAY_CONNECT ? bpf_get_prandom_u32() :
						   socket_random(ctx, dialled),
			      block->count);
		word = slot_word(block->first + slot);
	}
	if (bound_to_loopback(ctx, &dialled->addr) && !is_on_host(word)) {
		slot = slot_for_loopback(block);
		if (slot == NO_SLOT)
			return OUTCOME_PASSED_BOUND_TO_LOOPBACK;
		/* Where this socket must go says nothing about the client's others. */
		return choose_slot(block, slot, choice) ? OUTCOME_TRANSLATED :
							  OUTCOME_REFUSED_UNSTABLE;
	}
	if (!take(block, word, slot, choice))
		return OUTCOME_REFUSED_UNSTABLE;
	if (outcome == OUTCOME_TRANSLATED_BY_AFFINITY)
		renew_affinity(entry);
	else if (affinity_seconds(block))
		remember_affinity(&client, choice);
	return outcome;
}

/* Everything but what the socket remembers: look-up, refusals, choice. */
static __always_inline enum outcome resolve(struct bpf_sock_addr *ctx, struct config *settings,
					    struct frontend_key *dialled, enum way way,
					    struct datagram_origins *record, struct choice *choice)
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
	return choose(ctx, dialled, &block, way, kept, choice);
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
