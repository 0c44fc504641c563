/* SPDX-License-Identifier: Apache-2.0 */
/* connect() of a new socket, and of the same one again. */
#define _GNU_SOURCE
#include "lanes.h"

#include <unistd.h>

static void make_socket(struct lane *lane)
{
	lane->fresh = new_socket(lane->family, lane->type);
}

/*
 * Over loopback and veth the whole handshake happens inside connect(): what it waits for is the kernel's work
 * alone, and accepting afterwards costs the timing nothing.
 */
static void run_connect(struct lane *lane, uint32_t *times)
{
	struct sockaddr_storage address;
	socklen_t length = target(lane, &address);
	int fd = lane->fresh, failed;
	uint64_t start = now();

	failed = connect(fd, (struct sockaddr *)&address, length);
	*times = now() - start;
	if (failed)
		die("connect");
	if (lane->type == SOCK_STREAM) {
		int accepted = accept_from(lane->place);

		reset(fd);
		close(accepted);
	} else {
		close(fd);
	}
}

const struct operation connect_operation = { "connect", 1, 1, make_socket, run_connect };

static void make_kept_socket(struct lane *lane)
{
	lane->socket = new_socket(lane->family, SOCK_DGRAM);
}

/* UDP only: what a hook does the first time for a socket, it need not do again. */
static void run_reconnect(struct lane *lane, uint32_t *times)
{
	struct sockaddr_storage address;
	socklen_t length = target(lane, &address);
	uint64_t start = now();

	if (connect(lane->socket, (struct sockaddr *)&address, length))
		die("connect again");
	*times = now() - start;
}

const struct operation reconnect_operation = { "reconnect", 1, 0, make_kept_socket, run_reconnect };
