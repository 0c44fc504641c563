/* SPDX-License-Identifier: GPL-2.0-only */
/* sendto() and sendmsg() with an address, UDP only. A v4-mapped one of an IPv6 socket comes to sendmsg4. */
#ifndef KUBESOCK_SENDMSG_H
#define KUBESOCK_SENDMSG_H

static __always_inline enum outcome send_to(struct bpf_sock_addr *ctx, struct config *settings,
					    enum hook hook, struct frontend_key *dialled,
					    struct choice *choice)
{
	struct datagram_origins *record = 0;
	struct bpf_sock *sk = ctx->sk;
	enum outcome outcome;

	if (sk)
		record = adopt_datagrams(sk, origin_udp.sk_storage_get(sk, 0, 0));
	outcome = resolve(ctx, settings, dialled, WAY_DATAGRAM, record, choice);
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
	struct config *settings = configuration();
	struct choice choice = {};
	enum outcome outcome;

	if (!settings || !is_served(ctx->protocol))
		return PROCEED;
	ipv4_of(ctx, &dialled.addr);
	if (!may_be_served(settings, &dialled))
		return PROCEED;
	outcome = send_to(ctx, settings, HOOK_SENDMSG4, &dialled, &choice);
	if (is_translated(outcome))
		put_ipv4(ctx, &choice.addr, choice.port);
	return verdict(outcome);
}

int sendmsg6(struct bpf_sock_addr *ctx)
{
	struct frontend_key dialled = { .port = ctx->user_port, .protocol = ctx->protocol };
	struct config *settings = configuration();
	struct choice choice = {};
	enum outcome outcome;

	if (!settings || !is_served(ctx->protocol))
		return PROCEED;
	ipv6_of(ctx, &dialled.addr);
	if (!may_be_served(settings, &dialled))
		return PROCEED;
	outcome = send_to(ctx, settings, HOOK_SENDMSG6, &dialled, &choice);
	if (is_translated(outcome))
		put_ipv6(ctx, &choice.addr, choice.port);
	return verdict(outcome);
}

#endif
