/* SPDX-License-Identifier: GPL-2.0-only */
/* connect(): TCP and UDP. Also sendto(MSG_FASTOPEN), which connects. */
#ifndef KUBESOCK_CONNECT_H
#define KUBESOCK_CONNECT_H

static __always_inline enum outcome connect_to(struct bpf_sock_addr *ctx, enum hook hook,
					       struct frontend_key *dialled, struct choice *choice)
{
	struct config *settings = configuration();
	struct block block = {};
	enum outcome outcome;
	enum found found;
	u32 set_id = 0;

	if (!settings)
		return OUTCOME_NOT_A_SERVICE;
	found = find_set(ctx, settings, dialled, &set_id);
	if (found == FOUND_NOTHING) {
		outcome = unserved(settings, dialled);
		if (outcome == OUTCOME_NOT_A_SERVICE) {
			forget_origin(ctx);
			return outcome;
		}
	} else if (found == FOUND_UNSTABLE || !open_block(set_id, &block)) {
		outcome = OUTCOME_REFUSED_UNSTABLE;
	} else if (!block.count) {
		choice->owner = block.owner;
		outcome = outcome_when_empty(&block);
	} else {
		outcome = choose(ctx, dialled, &block, 0, bpf_get_prandom_u32(), choice);
	}
	if (!is_translated(outcome))
		forget_origin(ctx);
	else if (!remember_origin(ctx, dialled, choice))
		count_outcome(OUTCOME_ORIGIN_NOT_STORED);
	count(outcome, choice);
	report(ctx, settings, hook, outcome, dialled, choice);
	return outcome;
}

int connect4(struct bpf_sock_addr *ctx)
{
	struct frontend_key dialled = { .port = ctx->user_port, .protocol = ctx->protocol };
	struct choice choice = {};
	enum outcome outcome;

	if (!is_served(ctx->protocol))
		return PROCEED;
	ipv4_of(ctx, &dialled.addr);
	outcome = connect_to(ctx, HOOK_CONNECT4, &dialled, &choice);
	if (is_translated(outcome))
		put_ipv4(ctx, &choice.addr, choice.port);
	return verdict(outcome);
}

int connect6(struct bpf_sock_addr *ctx)
{
	struct frontend_key dialled = { .port = ctx->user_port, .protocol = ctx->protocol };
	struct choice choice = {};
	enum outcome outcome;

	if (!is_served(ctx->protocol))
		return PROCEED;
	ipv6_of(ctx, &dialled.addr);
	outcome = connect_to(ctx, HOOK_CONNECT6, &dialled, &choice);
	if (is_translated(outcome))
		put_ipv6(ctx, &choice.addr, choice.port);
	return verdict(outcome);
}

#endif
