/* SPDX-License-Identifier: GPL-2.0-only */
/* What a socket dialled, kept with the socket: replies and getpeername() show it. */
#ifndef KUBESOCK_ORIGIN_H
#define KUBESOCK_ORIGIN_H

#include "lib/earlier.h"

static __always_inline bool remember_origin(struct bpf_sock_addr *ctx,
					    const struct frontend_key *dialled,
					    const struct choice *choice)
{
	struct bpf_sock *sk = ctx->sk;
	struct origin *record;

	if (!sk)
		return false;
	record = origin.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!record)
		return false;
	record->frontend = dialled->addr;
	record->backend = choice->addr;
	record->frontend_port = dialled->port;
	record->backend_port = choice->port;
	record->service_port = choice->owner >> 32;
	record->service_port_incarnation = choice->owner;
	record->backend_id = choice->backend >> 32;
	record->backend_incarnation = choice->backend;
	record->protocol = dialled->protocol;
	record->family = ctx->family;
	record->since = now();
	void_earlier_origin(sk);
	return true;
}

/* The socket goes elsewhere: an earlier record would speak for a later direct connection to the same pod. */
static __always_inline void forget_origin(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct origin *record;

	if (!sk)
		return;
	record = origin.sk_storage_get(sk, 0, 0);
	if (record)
		record->backend_port = 0;
	forget_earlier_origin(sk);
}

static __always_inline bool matches(const struct frontend_key *dialled,
				    const struct datagram_origin *entry)
{
	return entry->backend_word && entry->frontend_port == dialled->port &&
	       same_address(&entry->frontend, &dialled->addr);
}

/* What this unconnected socket remembers of a frontend; 0: it did not send there lately. */
static __always_inline struct datagram_origin *datagram_of(struct datagram_origins *record,
							   const struct frontend_key *dialled)
{
	for (u32 i = 0; i < DATAGRAM_ORIGINS; i++) {
		if (matches(dialled, &record->entry[i])) {
			record->latest = i;
			return &record->entry[i];
		}
	}
	return 0;
}

static __always_inline void move_to_overflow(struct bpf_sock_addr *ctx,
					     struct datagram_origins *record,
					     const struct datagram_origin *entry)
{
	struct overflow_key key = {
		.socket = bpf_get_socket_cookie(ctx),
		.backend = entry->backend,
		.backend_port = entry->backend_port,
	};
	struct overflow value = { .frontend = entry->frontend,
				  .frontend_port = entry->frontend_port };

	origin_overflow.update(&key, &value);
	record->overflowed = 1;
}

static __always_inline bool remember_datagram(struct bpf_sock_addr *ctx,
					      const struct frontend_key *dialled,
					      const struct choice *choice)
{
	struct bpf_sock *sk = ctx->sk;
	struct datagram_origins *record;
	struct datagram_origin *entry;
	u32 place;

	if (!sk)
		return false;
	record = origin_udp.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!record)
		return false;
	entry = datagram_of(record, dialled);
	if (!entry) {
		place = record->next & (DATAGRAM_ORIGINS - 1);
		record->next = place + 1;
		record->latest = place;
		entry = &record->entry[place];
	}
	/* A reply of the backend before may still be under way. */
	if (entry->backend_word)
		move_to_overflow(ctx, record, entry);
	entry->backend_word = 0;
	entry->frontend = dialled->addr;
	entry->backend = choice->addr;
	entry->frontend_port = dialled->port;
	entry->backend_port = choice->port;
	entry->slot = choice->slot;
	entry->backend_word = choice->backend;
	return true;
}

static __always_inline bool is_from(const struct datagram_origin *entry, const struct address *peer,
				    __be16 port)
{
	return entry->backend_word && entry->backend_port == port &&
	       same_address(&entry->backend, peer);
}

/* The frontend in whose place the peer answered; false: none, the peer is what the socket dialled. */
static __always_inline bool datagram_frontend(struct bpf_sock_addr *ctx,
					      struct datagram_origins *record,
					      const struct address *peer, __be16 port,
					      struct address *frontend, __be16 *frontend_port)
{
	struct overflow_key key = { .backend = *peer, .backend_port = port };
	u32 latest = record->latest & (DATAGRAM_ORIGINS - 1);
	struct datagram_origin *entry = &record->entry[latest];
	struct overflow *older;

	if (is_from(entry, peer, port))
		goto found;
	for (u32 i = 0; i < DATAGRAM_ORIGINS; i++) {
		entry = &record->entry[i];
		if (is_from(entry, peer, port))
			goto found;
	}
	if (!record->overflowed)
		return false;
	key.socket = bpf_get_socket_cookie(ctx);
	older = origin_overflow.lookup(&key);
	if (!older)
		return false;
	*frontend = older->frontend;
	*frontend_port = older->frontend_port;
	return true;
found:
	*frontend = entry->frontend;
	*frontend_port = entry->frontend_port;
	return true;
}

#endif
