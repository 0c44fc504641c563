/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Lists every socket that has an origin, of all network namespaces: the live
 * connection table, and how sockets on a removed backend are found.
 *
 * Where the fields of a socket are differs from kernel to kernel, so the loader
 * takes the offsets from the running kernel's BTF and defines SOCK_* and NET_*.
 * Also defined: HAVE_SOCKET_COOKIE (1: bpf_get_socket_cookie works here, 5.12).
 */
#include <uapi/linux/bpf.h>

#include "contract.h"
#include "lib/address.h"
#include "lib/storage_iterator.h"

#define FAMILY_IPV4 2

#define FIELD(type, base, offset) (*(type *)((void *)(base) + (offset)))

static __always_inline void mapped(struct address *to, __be32 ipv4)
{
	to->word[0] = 0;
	to->word[1] = 0;
	to->word[2] = MAPPED_PREFIX;
	to->word[3] = ipv4;
}

static __always_inline void copy_ipv6(struct address *to, struct sock *sk, int offset)
{
	to->word[0] = FIELD(u32, sk, offset);
	to->word[1] = FIELD(u32, sk, offset + 4);
	to->word[2] = FIELD(u32, sk, offset + 8);
	to->word[3] = FIELD(u32, sk, offset + 12);
}

BPF_ITER(bpf_sk_storage_map)
{
	struct seq_file *seq = ctx->meta->seq;
	struct origin *origin = ctx->value;
	struct sock *sk = ctx->sk;
	struct connection found = {};
	void *net;

	if (!sk || !origin || !origin->backend_port)
		return 0;
	found.source_port = FIELD(u16, sk, SOCK_SOURCE_PORT);
	if (!found.source_port)
		return 0;
	found.family = FIELD(u16, sk, SOCK_FAMILY);
	found.state = FIELD(u8, sk, SOCK_STATE);
	found.protocol = origin->protocol;
	found.peer_port = FIELD(u16, sk, SOCK_PEER_PORT);
	if (found.family == FAMILY_IPV4) {
		mapped(&found.source, FIELD(u32, sk, SOCK_SOURCE_IPV4));
		mapped(&found.peer, FIELD(u32, sk, SOCK_PEER_IPV4));
	} else {
		copy_ipv6(&found.source, sk, SOCK_SOURCE_IPV6);
		copy_ipv6(&found.peer, sk, SOCK_PEER_IPV6);
	}
	net = FIELD(void *, sk, SOCK_NET);
	if (net)
		found.netns = FIELD(u32, net, NET_INODE);
	if (HAVE_SOCKET_COOKIE)
		found.cookie = bpf_get_socket_cookie(sk);
	found.origin = *origin;
	bpf_seq_write(seq, &found, sizeof(found));
	return 0;
}
