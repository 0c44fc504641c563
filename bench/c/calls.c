/* SPDX-License-Identifier: Apache-2.0 */
/* getpeername() of a connected socket, and accept() with a name, which runs the same hook. */
#define _GNU_SOURCE
#include "lanes.h"

#include <unistd.h>

#define REPEATS 32 /* one getpeername() is hardly longer than reading the clock */

static void make_kept_socket(struct lane *lane)
{
	lane->socket = new_socket(lane->family, SOCK_STREAM);
}

static void run_getpeername(struct lane *lane, uint32_t *times)
{
	struct sockaddr_storage peer;
	uint64_t start;

	if (lane->peer < 0) {
		connect_lane(lane, lane->socket);
		lane->peer = accept_from(lane->place);
	}
	start = now();
	for (int i = 0; i < REPEATS; i++) {
		socklen_t length = sizeof(peer);

		if (getpeername(lane->socket, (struct sockaddr *)&peer, &length))
			die("getpeername");
	}
	*times = (now() - start) / REPEATS;
}

/* The listener of a hooked lane is a pod's: what it accepts belongs to its cgroup. */
static void make_listener(struct lane *lane)
{
	lane->socket = new_socket(lane->family, SOCK_STREAM);
	bind_lane(lane, lane->socket);
	if (listen(lane->socket, 16))
		die("listen");
}

static void run_accept(struct lane *lane, uint32_t *times)
{
	struct sockaddr_storage peer;
	socklen_t length = sizeof(peer);
	int client = new_socket(lane->family, SOCK_STREAM), accepted;
	uint64_t start;

	if (connect(client, (struct sockaddr *)&lane->address, sizeof(lane->address)))
		die("connect to the lane's own listener");
	start = now();
	accepted = accept4(lane->socket, (struct sockaddr *)&peer, &length, SOCK_CLOEXEC);
	*times = now() - start;
	if (accepted < 0)
		die("accept");
	reset(client);
	close(accepted);
}

const struct operation getpeername_operation = { "getpeername", 1, 0, make_kept_socket,
						 run_getpeername };
const struct operation accept_operation = { "accept", 1, 0, make_listener, run_accept };
