/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "lanes.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

int new_socket(int family, int type)
{
	int fd = socket(family, type | SOCK_CLOEXEC, 0);
	struct timeval patience = { .tv_sec = 5 }; /* then an error, not a bench that hangs */

	if (fd < 0)
		die("socket");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	return fd;
}

/* Where the lane dials this time. Returns the length of the address. */
socklen_t target(const struct lane *lane, struct sockaddr_storage *address)
{
	struct in6_addr chosen = lane->first;
	uint32_t last;

	if (lane->count > 1) {
		memcpy(&last, &chosen.s6_addr[12], 4);
		last = htonl(ntohl(last) + random_below(lane->count));
		memcpy(&chosen.s6_addr[12], &last, 4);
	}
	if (lane->family == AF_INET) {
		struct sockaddr_in *ipv4 = (struct sockaddr_in *)address;

		*ipv4 = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = lane->port };
		memcpy(&ipv4->sin_addr, &chosen.s6_addr[12], 4);
		return sizeof(*ipv4);
	}
	*(struct sockaddr_in6 *)address = (struct sockaddr_in6){ .sin6_family = AF_INET6,
								 .sin6_port = lane->port,
								 .sin6_addr = chosen };
	return sizeof(struct sockaddr_in6);
}

/* Connect outside of any timing. */
void connect_lane(struct lane *lane, int fd)
{
	struct sockaddr_storage address;
	socklen_t length = target(lane, &address);

	if (connect(fd, (struct sockaddr *)&address, length))
		die("connect");
}

int accept_from(const struct place *place)
{
	int fd = accept4(place->listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		die("accept");
	return fd;
}

/* Bind to the lane's own address. */
void bind_lane(struct lane *lane, int fd)
{
	struct sockaddr_storage wanted;
	socklen_t length = target(lane, &wanted);
	int on = 1;

	/* Endpoint addresses are routed to loopback, not assigned; IPv6 asks for the latter. */
	if (lane->family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_FREEBIND, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&wanted, length))
		die("bind");
	length = sizeof(lane->address);
	getsockname(fd, (struct sockaddr *)&lane->address, &length);
}

/* Close without TIME_WAIT: thousands of connections a second would use up the ports. */
void reset(int fd)
{
	struct linger at_once = { .l_onoff = 1, .l_linger = 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	close(fd);
}

/* Let go of the sockets that the lane kept. */
void drop(struct lane *lane)
{
	if (lane->socket >= 0)
		reset(lane->socket);
	if (lane->peer >= 0 && lane->peer != lane->socket)
		close(lane->peer);
	lane->socket = lane->peer = -1;
}
