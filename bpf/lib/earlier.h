/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Records of another layout, while hooks move from its maps to ours (CROSSING).
 *
 * Reverse hooks are exchanged first and forward hooks after them, so for a moment forward hooks still write the
 * earlier maps. From then on forward hooks and carry.c make a record ours and void the earlier one: of the two,
 * that which is not void is the one that counts. So it stays when an agent ends on the way, or turns back.
 *
 * EARLIER_TYPES is what user space made of the earlier layout's description: structs earlier_X, and functions
 * from them to our X.
 */
#ifndef KUBESOCK_EARLIER_H
#define KUBESOCK_EARLIER_H

#if CROSSING

EARLIER_TYPES

#define EARLIER_MAP(type, key, value, name) BPF_F_TABLE("hash", key, value, earlier_##name, 1, 0)

EARLIER_MAP("sk_storage", int, struct earlier_origin, origin);
EARLIER_MAP("sk_storage", int, struct earlier_datagram_origins, origin_udp);
EARLIER_MAP("lru_hash", struct earlier_overflow_key, struct earlier_overflow, origin_overflow);
EARLIER_MAP("lru_hash", struct earlier_affinity_key, struct earlier_affinity, affinity);

/* What a socket connected to; 0: to no Service. `spare` is memory for it. */
static __always_inline struct origin *origin_of(struct bpf_sock *sk, struct origin *spare)
{
	struct earlier_origin *found = earlier_origin.sk_storage_get(sk, 0, 0);
	struct origin *ours;

	if (found && found->backend_port) {
		origin_of_earlier_origin(spare, found);
		return spare;
	}
	ours = origin.sk_storage_get(sk, 0, 0);
	if (!ours)
		return 0;
	*spare = *ours; /* the verifier follows no pointer that may be into a map or the stack */
	return spare;
}

/* The socket connects elsewhere. Ours must be there by then, or carry.c would make it of the earlier one. */
static __always_inline void void_earlier_origin(struct bpf_sock *sk)
{
	struct earlier_origin *found = earlier_origin.sk_storage_get(sk, 0, 0);

	if (found)
		found->backend_port = 0;
}

/* As void_earlier_origin(), of a socket that need not have a record. */
static __always_inline void forget_earlier_origin(struct bpf_sock *sk)
{
	struct earlier_origin *found = earlier_origin.sk_storage_get(sk, 0, 0);
	struct origin *record;

	if (!found || !found->backend_port)
		return;
	record = origin.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (record)
		record->backend_port = 0;
	found->backend_port = 0;
}

static __always_inline bool is_void_datagrams(const struct earlier_datagram_origins *found)
{
	u64 any = 0;

	for (u32 i = 0; i < EARLIER_DATAGRAM_ORIGINS; i++)
		any |= found->entry[i].backend_word;
	return !any;
}

static __always_inline void void_datagrams(struct earlier_datagram_origins *found)
{
	for (u32 i = 0; i < EARLIER_DATAGRAM_ORIGINS; i++)
		found->entry[i].backend_word = 0;
}

/* Ours, made of the earlier one; `record`, which may be 0, if that is void. */
static __always_inline struct datagram_origins *adopt_datagrams(struct bpf_sock *sk,
								struct datagram_origins *record)
{
	struct earlier_datagram_origins *found = earlier_origin_udp.sk_storage_get(sk, 0, 0);

	if (!found || is_void_datagrams(found))
		return record;
	record = origin_udp.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!record)
		return 0;
	datagram_origins_of_earlier_datagram_origins(record, found);
	void_datagrams(found);
	return record;
}

static __always_inline bool earlier_is_from(const struct earlier_datagram_origin *entry,
					    const struct address *peer, __be16 port)
{
	return entry->backend_word && entry->backend_port == port &&
	       same_address(&entry->backend, peer);
}

/* As datagram_frontend(). */
static __always_inline bool earlier_datagram_frontend(struct bpf_sock_addr *ctx,
						      struct bpf_sock *sk,
						      const struct address *peer, __be16 port,
						      struct address *frontend,
						      __be16 *frontend_port)
{
	struct earlier_datagram_origins *found = earlier_origin_udp.sk_storage_get(sk, 0, 0);
	struct overflow_key key = { .backend = *peer, .backend_port = port };
	struct earlier_overflow_key earlier_key = {};
	struct earlier_datagram_origin *entry;
	struct earlier_overflow *older;

	if (!found)
		return false;
	entry = &found->entry[found->latest & (EARLIER_DATAGRAM_ORIGINS - 1)];
	if (earlier_is_from(entry, peer, port))
		goto found;
	for (u32 i = 0; i < EARLIER_DATAGRAM_ORIGINS; i++) {
		entry = &found->entry[i];
		if (earlier_is_from(entry, peer, port))
			goto found;
	}
	key.socket = bpf_get_socket_cookie(ctx);
	earlier_overflow_key_of_overflow_key(&earlier_key, &key);
	older = earlier_origin_overflow.lookup(&earlier_key);
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

/* A client that is new here may have stayed on a backend there. */
static __always_inline struct affinity *adopt_affinity(struct affinity_key *client)
{
	struct earlier_affinity_key key = {};
	struct affinity entry = {};
	struct earlier_affinity *found;

	earlier_affinity_key_of_affinity_key(&key, client);
	found = earlier_affinity.lookup(&key);
	if (!found)
		return 0;
	affinity_of_earlier_affinity(&entry, found);
	affinity.insert(client, &entry);
	return affinity.lookup(client);
}

#else

/* What a socket connected to; 0: to no Service. */
static __always_inline struct origin *origin_of(struct bpf_sock *sk, struct origin *spare)
{
	return origin.sk_storage_get(sk, 0, 0);
}

static __always_inline void void_earlier_origin(struct bpf_sock *sk)
{
}

static __always_inline void forget_earlier_origin(struct bpf_sock *sk)
{
}

static __always_inline struct datagram_origins *adopt_datagrams(struct bpf_sock *sk,
								struct datagram_origins *record)
{
	return record;
}

static __always_inline bool earlier_datagram_frontend(struct bpf_sock_addr *ctx,
						      struct bpf_sock *sk,
						      const struct address *peer, __be16 port,
						      struct address *frontend,
						      __be16 *frontend_port)
{
	return false;
}

static __always_inline struct affinity *adopt_affinity(struct affinity_key *client)
{
	return 0;
}

#endif

#endif
