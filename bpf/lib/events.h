/* SPDX-License-Identifier: GPL-2.0-only */
/* One record for each translation and refusal, while somebody listens. */
#ifndef KUBESOCK_EVENTS_H
#define KUBESOCK_EVENTS_H

/* Leaves out whose network namespace it is: packets have none. */
static __always_inline bool is_listened_for(struct config *settings, enum outcome outcome,
					    u32 service_port)
{
	/* Nobody listens nearly always, and this is the only price then. */
	if (!settings->event_lease || settings->event_lease < now())
		return false;
	if (!(settings->event_outcomes >> outcome & 1))
		return false;
	if (settings->event_service_port && service_port &&
	    settings->event_service_port != service_port)
		return false;
	return settings->event_sample < 2 ||
	       spread(bpf_get_prandom_u32(), settings->event_sample) == 0;
}

static __always_inline bool wanted(struct bpf_sock_addr *ctx, struct config *settings,
				   enum outcome outcome, u32 service_port)
{
	/* The agent looks for the client's address as soon as it hears of it. */
	if (outcome == OUTCOME_REFUSED_UNKNOWN_SOURCE)
		return true;
	if (!is_listened_for(settings, outcome, service_port))
		return false;
	return !settings->event_netns || settings->event_netns == bpf_get_netns_cookie(ctx);
}

static __always_inline void report(struct bpf_sock_addr *ctx, struct config *settings,
				   enum hook hook, enum outcome outcome,
				   const struct frontend_key *dialled, const struct choice *choice)
{
	struct event *event;

	if (!wanted(ctx, settings, outcome, choice->owner >> 32))
		return;
	event = events.ringbuf_reserve(sizeof(struct event));
	if (!event) {
		count_outcome(OUTCOME_EVENT_NOT_STORED);
		return;
	}
	event->time = now();
	event->cgroup = bpf_get_current_cgroup_id();
	event->netns = bpf_get_netns_cookie(ctx);
	event->socket = bpf_get_socket_cookie(ctx);
	event->dialled = *dialled;
	event->backend = choice->addr;
	event->backend_port = choice->port;
	event->outcome = outcome;
	event->hook = hook;
	event->service_port = choice->owner >> 32;
	event->backend_id = choice->backend >> 32;
	event->pid = bpf_get_current_pid_tgid() >> 32;
	event->pad = 0;
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	event->previous = choice->previous;
	events.ringbuf_submit(event, 0);
}

#endif
