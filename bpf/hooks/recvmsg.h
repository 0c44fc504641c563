/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * recvfrom() and recvmsg() that ask for the sender, UDP. Every such call on the
 * node comes here: what has no record must leave after one look-up that misses.
 */
#ifndef KUBESOCK_RECVMSG_H
#define KUBESOCK_RECVMSG_H

#define SOCKET_CONNECTED 1 /* TCP_ESTABLISHED, which connected UDP sockets use too */

static __always_inline bool sender_of(struct bpf_sock_addr *ctx, const struct address *peer,
				      struct address *frontend, __be16 *frontend_port)
{
	__be16 port = ctx->user_port;
	struct bpf_sock *sk = ctx->sk;
	struct datagram_origins *record;
	struct origin spare, *connected;

	if (!sk)
		return false;
	if (sk->state != SOCKET_CONNECTED) {
		record = origin_udp.sk_storage_get(sk, 0, 0);
		return (record &&
			datagram_frontend(ctx, record, peer, port, frontend, frontend_port)) ||
		       earlier_datagram_frontend(ctx, sk, peer, port, frontend, frontend_port);
	}
	connected = origin_of(sk, &spare);
	if (!connected || connected->backend_port != port ||
	    !same_address(&connected->backend, peer))
		return false;
	*frontend = connected->frontend;
	*frontend_port = connected->frontend_port;
	return true;
}

int recvmsg4(struct bpf_sock_addr *ctx)
{
	struct address peer, frontend;
	__be16 port;

	ipv4_of(ctx, &peer);
	if (sender_of(ctx, &peer, &frontend, &port)) {
		put_ipv4(ctx, &frontend, port);
		count_outcome(OUTCOME_REPLY_TRANSLATED);
	}
	return PROCEED;
}

int recvmsg6(struct bpf_sock_addr *ctx)
{
	struct address peer, frontend;
	__be16 port;

	ipv6_of(ctx, &peer);
	if (sender_of(ctx, &peer, &frontend, &port)) {
		put_ipv6(ctx, &frontend, port);
		count_outcome(OUTCOME_REPLY_TRANSLATED);
	}
	return PROCEED;
}

#endif
