/* SPDX-License-Identifier: GPL-2.0-only */
/* What others can see of new flows and refusals. */
#ifndef KUBESOCK_TOLD_H
#define KUBESOCK_TOLD_H

static __always_inline void count_outside(enum outcome outcome)
{
	u32 index = outcome;
	u64 *count = outside_outcomes.lookup(&index);

	if (count)
		*count += 1;
}

static __always_inline void report_packet(struct config *settings, const struct packet *packet,
					  enum outcome outcome, const struct frontend_key *dialled,
					  const struct choice *choice)
{
	struct event *event;

	if (settings->event_netns || !is_listened_for(settings, outcome, choice->owner >> 32))
		return;
	event = events.ringbuf_reserve(sizeof(struct event));
	if (!event) {
		count_outcome(OUTCOME_EVENT_NOT_STORED);
		return;
	}
	event->time = now();
	event->cgroup = 0;
	event->netns = 0;
	event->socket = 0;
	event->dialled = *dialled;
	event->backend = choice->addr;
	event->backend_port = choice->port;
	event->outcome = outcome;
	event->hook = HOOK_OUTSIDE;
	event->service_port = choice->owner >> 32;
	event->backend_id = choice->backend >> 32;
	event->pid = 0;
	event->pad = 0;
	__builtin_memcpy(event->comm, &packet->key.source, sizeof(event->comm));
	event->previous = choice->previous;
	events.ringbuf_submit(event, 0);
}

static __always_inline void tell(struct config *settings, const struct packet *packet,
				 enum outcome outcome, const struct frontend_key *dialled,
				 const struct choice *choice)
{
	count_outside(outcome);
	if (is_translated(outcome))
		count_chosen(choice->backend >> 32);
	else if (choice->owner && errno_of(outcome))
		count_refused(choice->owner >> 32);
	report_packet(settings, packet, outcome, dialled, choice);
}

#endif
