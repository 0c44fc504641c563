/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * getpeername(), and accept() that asks for the peer: every server on the node
 * comes here and must leave after one look-up that misses.
 */
#ifndef KUBESOCK_GETPEERNAME_H
#define KUBESOCK_GETPEERNAME_H

/* A record counts only while the socket's peer is its backend: no hook runs at connect(AF_UNSPEC). */
static __always_inline struct origin *origin_of_peer(struct bpf_sock_addr *ctx,
						     struct origin *spare)
{
	struct bpf_sock *sk = ctx->sk;
	struct origin *record;

	if (!sk)
		return 0;
	record = origin_of(sk, spare);
	if (!record || record->backend_port != (__be16)ctx->user_port)
		return 0;
	return record;
}

int getpeername4(struct bpf_sock_addr *ctx)
{
	struct origin spare, *record = origin_of_peer(ctx, &spare);
	struct address peer;

	if (!record)
		return PROCEED;
	ipv4_of(ctx, &peer);
	if (same_address(&record->backend, &peer)) {
		put_ipv4(ctx, &record->frontend, record->frontend_port);
		count_outcome(OUTCOME_PEER_TRANSLATED);
	}
	return PROCEED;
}

int getpeername6(struct bpf_sock_addr *ctx)
{
	struct origin spare, *record = origin_of_peer(ctx, &spare);
	struct address peer;

	if (!record)
		return PROCEED;
	ipv6_of(ctx, &peer);
	if (same_address(&record->backend, &peer)) {
		put_ipv6(ctx, &record->frontend, record->frontend_port);
		count_outcome(OUTCOME_PEER_TRANSLATED);
	}
	return PROCEED;
}

#endif
