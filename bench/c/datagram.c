/* SPDX-License-Identifier: Apache-2.0 */
/* Unconnected UDP: sendto() and recvfrom() with names. */
#define _GNU_SOURCE
#include "lanes.h"

#include <string.h>
#include <unistd.h>

static char text[64];

static void send_one(int fd, const struct sockaddr_storage *to, socklen_t length)
{
	if (sendto(fd, text, 1, 0, (const struct sockaddr *)to, length) != 1)
		die("sendto");
}

static socklen_t receive_one(int fd, struct sockaddr_storage *from)
{
	socklen_t length = sizeof(*from);

	if (recvfrom(fd, text, sizeof(text), 0, (struct sockaddr *)from, &length) != 1)
		die("recvfrom");
	return length;
}

/* A socket at the lane's address that talks to itself; port 0 takes any. */
static void make_bound(struct lane *lane)
{
	lane->socket = new_socket(lane->family, SOCK_DGRAM);
	bind_lane(lane, lane->socket);
}

static void run_self(struct lane *lane, uint32_t *times)
{
	socklen_t length =
		lane->family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
	struct sockaddr_storage from;
	uint64_t start = now(), sent;

	send_one(lane->socket, &lane->address, length);
	sent = now();
	receive_one(lane->socket, &from);
	times[0] = sent - start;
	times[1] = now() - sent;
}

static void make_client(struct lane *lane)
{
	lane->socket = new_socket(lane->family, SOCK_DGRAM);
}

/*
 * The socket that answers the lane's datagrams, shared with lanes before it that are answered from the same address.
 * Bound to that address: from a wildcard the kernel may answer with another one.
 */
void set_up_answerer(struct lane *lane, const struct lane *before)
{
	struct lane at = { .family = lane->family,
			   .first = lane->answerer,
			   .port = htons(LISTENER_PORT) };

	for (; before < lane; before++)
		if (before->place == lane->place &&
		    !memcmp(&before->answerer, &lane->answerer, sizeof(lane->answerer))) {
			lane->peer = before->peer;
			return;
		}
	lane->peer = new_socket(lane->family, SOCK_DGRAM);
	bind_lane(&at, lane->peer);
}

/* To the server and back. The server's own calls, which no hook of the lane sees, stand in the middle. */
static void run_trip(struct lane *lane, uint32_t *times)
{
	struct sockaddr_storage to, client;
	socklen_t length = target(lane, &to);
	uint64_t start = now(), sent, served;

	send_one(lane->socket, &to, length);
	sent = now();
	length = receive_one(lane->peer, &client);
	send_one(lane->peer, &client, length);
	served = now();
	receive_one(lane->socket, &to);
	times[0] = sent - start;
	times[1] = served - sent;
	times[2] = now() - served;
}

const struct operation self_datagram_operation = { "self-datagram", 2, 0, make_bound, run_self };
const struct operation trip_operation = { "trip", 3, 0, make_client, run_trip };
