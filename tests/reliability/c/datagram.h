/* SPDX-License-Identifier: Apache-2.0 */
/* Datagrams: sent, received, answered, and asked for where they went if nobody had them: see dials.c. */
#ifndef DATAGRAM_H
#define DATAGRAM_H

#include <poll.h>
#include "judge.h"

#define PATIENCE 5000 /* milliseconds */

/* A UDP socket that is told which of its datagrams found no receiver. */
static void hear_of_loss(int fd, int family)
{
	int on = 1;
	bool ipv6 = family == AF_INET6;

	if (setsockopt(fd, ipv6 ? IPPROTO_IPV6 : IPPROTO_IP, ipv6 ? IPV6_RECVERR : IP_RECVERR, &on,
		       sizeof(on)))
		die("hear of loss");
}

/*
 * Where a datagram of `sender` went that found no receiver, by the ICMP message about it. The kernel walks a
 * chain of sockets without a lock; when one that it is at is moved to another chain by its connect(), the rest
 * is missed (net/ipv4/udp.c, udp4_lib_lookup2). Once in some million, and nothing that a hook can do.
 */
static bool not_received(int sender, struct in6_addr *where, int *port)
{
	struct sockaddr_storage to;
	char byte, control[256];
	struct iovec part = { &byte, 1 };
	struct msghdr message = { .msg_name = &to,
				  .msg_namelen = sizeof(to),
				  .msg_iov = &part,
				  .msg_iovlen = 1,
				  .msg_control = control,
				  .msg_controllen = sizeof(control) };

	if (recvmsg(sender, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0 || !message.msg_namelen)
		return false;
	mapped_of(&to, where);
	*port = ntohs(((const struct sockaddr_in *)&to)->sin_port);
	return true;
}

/* Whether something is there for `fd`, before `sender` has heard that there is nobody. */
static bool awaited(int fd, int sender)
{
	struct pollfd wanted[] = { { .fd = fd, .events = POLLIN }, { .fd = sender } };

	return poll(wanted, 2, PATIENCE) > 0 && wanted[0].revents & POLLIN;
}

/* Receives a datagram of `sender`; answers it if `answer`. False: there is none. */
static bool receive(struct target *target, int sender, struct in6_addr *backend, bool answer)
{
	int fd = receivers[target->family == AF_INET6];
	char byte, control[128];
	struct sockaddr_storage from;
	struct iovec part = { &byte, 1 };
	struct msghdr message = { .msg_name = &from,
				  .msg_namelen = sizeof(from),
				  .msg_iov = &part,
				  .msg_iovlen = 1,
				  .msg_control = control,
				  .msg_controllen = sizeof(control) };
	struct cmsghdr *c;

	if (recvmsg(fd, &message, MSG_DONTWAIT) < 0 &&
	    (!awaited(fd, sender) || recvmsg(fd, &message, MSG_DONTWAIT) < 0))
		return false;
	for (c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
		struct sockaddr_storage to = { .ss_family = AF_INET };

		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
			struct in_pktinfo *info = (struct in_pktinfo *)CMSG_DATA(c);

			((struct sockaddr_in *)&to)->sin_addr = info->ipi_addr;
			mapped_of(&to, backend);
			info->ipi_spec_dst = info->ipi_addr; /* where an answer comes from */
			info->ipi_ifindex = 0;
		} else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
			struct in6_pktinfo *info = (struct in6_pktinfo *)CMSG_DATA(c);

			*backend = info->ipi6_addr;
			info->ipi6_ifindex = 0;
		}
	}
	if (answer && sendmsg(fd, &message, 0) != 1)
		die("answer a datagram");
	return true;
}

/* A datagram that did not arrive: it must have gone where it may go. */
static void judge_loss(struct target *target, int sender, uint64_t earliest)
{
	struct in6_addr where;
	int port;

	if (!not_received(sender, &where, &port))
		return wrong(target, "the datagram did not arrive", NULL);
	if (port != BACKEND_PORT)
		return wrong(target, "another port", &where);
	target->unheard++;
	judge(target, &where, earliest);
}

static void exchange_datagram(struct target *target, int fd, uint64_t earliest)
{
	struct sockaddr_storage from;
	socklen_t length = sizeof(from);
	struct in6_addr backend, client;
	int port, receiver = receivers[target->family == AF_INET6];
	char byte = 'x';

	if (sendto(fd, &byte, 1, 0, (struct sockaddr *)&target->frontend, target->length) != 1)
		return wrong_errno(target, "sendto");
	if (!receive(target, fd, &backend, true))
		return judge_loss(target, fd, earliest);
	judge(target, &backend, earliest);
	if (!awaited(fd, receiver) && not_received(receiver, &client, &port)) {
		target->unheard++;
		return;
	}
	if (recvfrom(fd, &byte, 1, MSG_DONTWAIT, (struct sockaddr *)&from, &length) != 1)
		return wrong_errno(target, "recvfrom");
	target->asked++;
	if (!is_frontend(target, &from))
		wrong(target, "recvfrom() does not show the Service", &backend);
}

#endif
