/* SPDX-License-Identifier: GPL-2.0-only */
/* connect(): TCP and UDP. Also sendto(MSG_FASTOPEN), which connects. */
#ifndef KUBESOCK_CONNECT_H
#define KUBESOCK_CONNECT_H

static __always_inline enum outcome connect_to(struct bpf_sock_addr *ctx, struct config *settings,
					       enum hook hook, struct frontend_key *dialled,
					       struct choice *choice)
{
	enum outcome outcome = resolve(ctx, settings, dialled, WAY_CONNECT, 0, choice);

	if (!is_translated(outcome))
		forget_origin(ctx);
	else if (!remember_origin(ctx, dialled, choice))
		count_outcome(OUTCOME_ORIGIN_NOT_STORED);
	if (outcome != OUTCOME_NOT_A_SERVICE) {
		count(outcome, choice);
		report(ctx, settings, hook, outcome, dialled, choice);
	}
	return outcome;
}

int connect4(struct bpf_sock_addr *ctx)
{
	struct frontend_key dialled = { .port = ctx->user_port, .protocol = ctx->protocol };
	struct config *settings = configuration();
	struct choice choice = {};
	enum outcome outcome;

	if (!settings || !is_served(ctx->protocol))
		return PROCEED;
	ipv4_of(ctx, &dialled.addr);
	if (!may_be_served(settings, &dialled)) {
		forget_origin(ctx);
		return PROCEED;
	}
	outcome = connect_to(ctx, settings, HOOK_CONNECT4, &dialled, &choice);
	if (is_translated(outcome))
		put_ipv4(ctx, &choice.addr, choice.port);
	return verdict(outcome);
}

int connect6(struct bpf_sock_addr *ctx)
{
	struct frontend_key dialled = { .port = ctx->user_port, .protocol = ctx->protocol };
	struct config *settings = configuration();
	struct choice choice = {};
	enum outcome outcome;

	if (!settings || !is_served(ctx->protocol))
		return PROCEED;
	ipv6_of(ctx, &dialled.addr);
	if (!may_be_served(settings, &dialled)) {
		forget_origin(ctx);
		return PROCEED;
	}
	outcome = connect_to(ctx, settings, HOOK_CONNECT6, &dialled, &choice);
	if (is_translated(outcome))
		put_ipv6(ctx, &choice.addr, choice.port);
	return verdict(outcome);
}

#endif
