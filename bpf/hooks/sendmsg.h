/* SPDX-License-Identifier: GPL-2.0-only */
/* sendto() and sendmsg() with an address, UDP only. A v4-mapped one of an IPv6 socket comes to sendmsg4. */
#ifndef KUBESOCK_SENDMSG_H
#define KUBESOCK_SENDMSG_H

/* The same for all datagrams of a socket to a frontend, so that they stay together even without a record. */
static __always_inline u32 socket_random(struct bpf_sock_addr *ctx,
					 const struct frontend_key *dialled)
{
	u32 mixed = ((u32)bpf_get_socket_cookie(ctx) ^ frontend_tag(dialled)) * 0x85ebca6b;

	mixed ^= mixed >> 13;
	return mixed * 0xc2b2ae35;
}

static __always_inline enum outcome send_to(struct bpf_sock_addr *ctx, enum hook hook,
					    struct frontend_key *dialled, struct choice *choice)
{
	struct config *settings = configuration();
	struct datagram_origins *record = 0;
	struct bpf_sock *sk = ctx->sk;
	enum outcome outcome;

	if (!settings)
		return OUTCOME_NOT_A_SERVICE;
	if (sk)
		record = origin_udp.sk_storage_get(sk, 0, 0);
	if (sk)
		record = adopt_datagrams(sk, record);
	outcome = resolve(ctx, settings, dialled, record, socket_random(ctx, dialled), choice);
	if (outcome == OUTCOME_NOT_A_SERVICE)
		return outcome;
	if (is_translated(outcome) && outcome != OUTCOME_TRANSLATED_SAME_SOCKET &&
	    !remember_datagram(ctx, dialled, choice))
		count_outcome(OUTCOME_ORIGIN_NOT_STORED);
	count(outcome, choice);
	report(ctx, settings, hook, outcome, dialled, choice);
	return outcome;
}

int sendmsg4(struct bpf_sock_addr *ctx)
{
	struct frontend_key dialled = { .port = ctx->user_port, .protocol = ctx->protocol };
	struct choice choice = {};
	enum outcome outcome;

	if (!is_served(ctx->protocol))
		return PROCEED;
	ipv4_of(ctx, &dialled.addr);
	outcome = send_to(ctx, HOOK_SENDMSG4, &dialled, &choice);
	if (is_translated(outcome))
		put_ipv4(ctx, &choice.addr, choice.port);
	return verdict(outcome);
}

int sendmsg6(struct bpf_sock_addr *ctx)
{
	struct frontend_key dialled = { .port = ctx->user_port, .protocol = ctx->protocol };
	struct choice choice = {};
	enum outcome outcome;

	if (!is_served(ctx->protocol))
		return PROCEED;
	ipv6_of(ctx, &dialled.addr);
	outcome = send_to(ctx, HOOK_SENDMSG6, &dialled, &choice);
	if (is_translated(outcome))
		put_ipv6(ctx, &choice.addr, choice.port);
	return verdict(outcome);
}

#endif
