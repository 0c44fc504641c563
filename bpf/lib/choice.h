/* SPDX-License-Identifier: GPL-2.0-only */
/* From a set to one of its backends. */
#ifndef KUBESOCK_CHOICE_H
#define KUBESOCK_CHOICE_H

#define SLOT_SCAN 64 /* how far a backend is looked for that is not where it was */

/* A set's block as it was at one moment; its memory stays as it is until we return (RCU). */
struct block {
	u64 owner; /* service-port id and incarnation */
	u64 header;
	u32 first; /* index of the first backend's word in slots */
	u32 count;
};

struct choice {
	struct address addr;
	u64 backend; /* word of the slot */
	u64 owner;
	u64 previous; /* the one that the client was on, or 0 */
	u32 slot;
	__be16 port;
};

static __always_inline u64 slot_word(u32 index)
{
	u64 *word = slots.lookup(&index);

	return word ? READ_WORD(word) : 0;
}

static __always_inline bool open_block(u32 set_id, struct block *block)
{
	u64 *entry = sets.lookup(&set_id);
	u64 word;

	if (!entry)
		return false;
	word = READ_WORD(entry);
	block->first = (u32)(word >> 32) + BLOCK_HEADER_WORDS;
	block->count = word >> 16 & 0xffff;
	block->owner = slot_word(block->first - 3);
	block->header = slot_word(block->first - 2);
	return true;
}

static __always_inline u32 affinity_seconds(const struct block *block)
{
	return block->header & 0x1ffff;
}

static __always_inline bool is_restricted(const struct block *block)
{
	return (block->header >> 24 & 0xff) >= VIEW_RESTRICTED;
}

static __always_inline enum outcome outcome_when_empty(const struct block *block)
{
	return block->header >> 17 & 0x7f;
}

/*
 * Where in the block a backend stands: at its hint, else among the first SLOT_SCAN.
 * The answer goes through the hint's memory: as a number that the verifier knows it
 * would fork the rest of the program once for each slot.
 */
static __always_inline bool find_slot(const struct block *block, u64 backend, u32 *hint)
{
	u32 slot = *(volatile u32 *)hint;

	if (slot < block->count && slot_word(block->first + slot) == backend)
		return true;
	for (u32 i = 0; i < SLOT_SCAN; i++) {
		if (i >= block->count)
			return false;
		if (slot_word(block->first + i) == backend) {
			*(volatile u32 *)hint = i;
			return true;
		}
	}
	return false;
}

/* `word` is what stands, or just stood, in `slot`. */
static __always_inline bool take(const struct block *block, u64 word, u32 slot,
				 struct choice *choice)
{
	u32 id = word >> 32;
	struct backend *backend = backends.lookup(&id);

	if (!backend || backend->incarnation != (u32)word)
		return false;
	choice->addr = backend->addr;
	choice->port = backend->port;
	choice->backend = word;
	choice->owner = block->owner;
	choice->slot = slot;
	return true;
}

static __always_inline bool choose_slot(const struct block *block, u32 slot, struct choice *choice)
{
	return take(block, slot_word(block->first + slot), slot, choice);
}

/* An even spread of 32 random bits over the block. */
static __always_inline u32 spread(u32 random, u32 count)
{
	return (u64)random * count >> 32;
}

/* The same for all datagrams of a socket to a frontend, so that they stay together even without a record. */
static __always_inline u32 socket_random(struct bpf_sock_addr *ctx,
					 const struct frontend_key *dialled)
{
	u32 mixed = ((u32)bpf_get_socket_cookie(ctx) ^ frontend_tag(dialled)) * 0x85ebca6b;

	mixed ^= mixed >> 13;
	return mixed * 0xc2b2ae35;
}

static __always_inline bool bound_to_loopback(struct bpf_sock_addr *ctx,
					      const struct address *dialled)
{
	struct bpf_sock *sk = ctx->sk;

	if (!sk)
		return false;
	if (is_ipv4(dialled))
		return (HOST_32(sk->src_ip4) >> 24) == 127;
	return !sk->src_ip6[0] && !sk->src_ip6[1] && !sk->src_ip6[2] &&
	       HOST_32(sk->src_ip6[3]) == 1;
}

static __always_inline bool is_on_host(u64 word)
{
	u32 id = word >> 32;
	struct backend *backend = backends.lookup(&id);

	return backend && (backend->state & BACKEND_ON_NODE_ADDRESS || is_loopback(&backend->addr));
}

/* The kernel answers EINVAL when a socket bound to loopback leaves the host; this slot does not. */
static __always_inline u32 slot_for_loopback(const struct block *block)
{
	return slot_word(block->first - 1);
}

#endif
