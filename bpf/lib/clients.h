/* SPDX-License-Identifier: GPL-2.0-only */
/* Who dials: workloads that are left alone, and those that source ranges keep out. */
#ifndef KUBESOCK_CLIENTS_H
#define KUBESOCK_CLIENTS_H

static __always_inline bool is_opted_out_workload(u64 id, u32 kind)
{
	struct workload_key key = { .id = id, .kind = kind };

	return opted_out.lookup(&key) != 0;
}

static __always_inline bool is_left_alone(struct bpf_sock_addr *ctx, struct config *settings)
{
	u64 netns;

	if (!(settings->features & (FEATURE_OPT_OUT | FEATURE_HOST_ONLY)))
		return false;
	netns = bpf_get_netns_cookie(ctx);
	if (settings->features & FEATURE_HOST_ONLY && netns != settings->node_netns)
		return true;
	if (!(settings->features & FEATURE_OPT_OUT))
		return false;
	if (is_opted_out_workload(netns, WORKLOAD_NETNS))
		return true;
	if (!settings->opt_out_level)
		return false;
	return is_opted_out_workload(bpf_get_current_ancestor_cgroup_id(settings->opt_out_level),
				     WORKLOAD_CGROUP) ||
	       is_opted_out_workload(bpf_get_current_ancestor_cgroup_id(settings->opt_out_deeper),
				     WORKLOAD_CGROUP);
}

static __always_inline bool is_unspecified(const struct address *a)
{
	return !a->word[3] && !a->word[0] && !a->word[1] && (!a->word[2] || is_ipv4(a));
}

/*
 * What the socket is bound to, else the address of its network namespace;
 * unspecified: unknown. Volatile, because the verifier knows the fields of a
 * socket only at constant offsets and the compiler would merge the branches.
 */
static __always_inline void source_of(struct bpf_sock_addr *ctx, const struct address *dialled,
				      struct address *source)
{
	volatile struct bpf_sock *sk = ctx->sk;
	u64 netns = bpf_get_netns_cookie(ctx);
	struct client_addresses *known;

	if (!sk) {
		*source = (struct address){};
	} else if (is_ipv4(dialled)) {
		*source = *dialled;
		source->word[3] = sk->src_ip4;
	} else {
		source->word[0] = sk->src_ip6[0];
		source->word[1] = sk->src_ip6[1];
		source->word[2] = sk->src_ip6[2];
		source->word[3] = sk->src_ip6[3];
	}
	if (!is_unspecified(source))
		return;
	known = client_addresses.lookup(&netns);
	if (known)
		*source = is_ipv4(dialled) ? known->ipv4 : known->ipv6;
}

/* Whether source ranges let the client in; TRANSLATED: they do. */
static __always_inline enum outcome admission(struct bpf_sock_addr *ctx,
					      const struct address *dialled, u32 service_port)
{
	struct source_range_key key = { .prefix = 160, .service_port = service_port };

	source_of(ctx, dialled, &key.addr);
	if (is_unspecified(&key.addr))
		return OUTCOME_REFUSED_UNKNOWN_SOURCE;
	return source_ranges.lookup(&key) ? OUTCOME_TRANSLATED : OUTCOME_REFUSED_SOURCE_RANGE;
}

#endif
