/* SPDX-License-Identifier: Apache-2.0 */
/* What flows after connect(): bytes, requests on one connection, a connection for each request. */
#define _GNU_SOURCE
#include "lanes.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#define STREAM_BYTES (256 * 1024) /* timed in one go */
#define BUFFER_BYTES \
	(1024 * 1024) /* fixed: else each connection tunes its own, and no two are alike */
#define RENEWED \
	50 /* rounds: a connection's luck with its addresses in memory is not the Service's */

static char buffer[STREAM_BYTES];

static void make_kept_socket(struct lane *lane)
{
	int on = 1, room = BUFFER_BYTES;

	drop(lane);
	lane->socket = new_socket(lane->family, SOCK_STREAM);
	setsockopt(lane->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(lane->socket, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
	setsockopt(lane->socket, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
}

/* Through the kernel and back into this process: one CPU, so no wake-up blurs the time. */
static void run_stream(struct lane *lane, uint32_t *times)
{
	size_t sent = 0, received = 0;
	uint64_t start;

	if (lane->peer < 0) {
		connect_lane(lane, lane->socket);
		lane->peer = accept_from(lane->place);
	}
	start = now();
	while (received < STREAM_BYTES) {
		ssize_t wrote = 0, got;

		if (sent < STREAM_BYTES)
			wrote = send(lane->socket, buffer, STREAM_BYTES - sent, MSG_DONTWAIT);
		if (wrote < 0 && errno != EAGAIN)
			die("send");
		sent += wrote > 0 ? wrote : 0;
		got = recv(lane->peer, buffer, sizeof(buffer), MSG_DONTWAIT);
		if (got == 0 || (got < 0 && errno != EAGAIN))
			die("recv");
		received += got > 0 ? got : 0;
	}
	*times = now() - start;
}

static void exchange(int fd)
{
	size_t received = 0;

	if (send(fd, buffer, REQUEST_BYTES, MSG_NOSIGNAL) != REQUEST_BYTES)
		die("send a request");
	while (received < RESPONSE_BYTES) {
		ssize_t got = recv(fd, buffer, sizeof(buffer), 0);

		if (got <= 0)
			die("receive a response");
		received += got;
	}
}

static void run_request(struct lane *lane, uint32_t *times)
{
	uint64_t start;

	if (lane->peer < 0) {
		connect_lane(lane, lane->socket);
		lane->peer = lane->socket;
	}
	start = now();
	exchange(lane->socket);
	*times = now() - start;
}

static void make_socket(struct lane *lane)
{
	lane->fresh = new_socket(lane->family, SOCK_STREAM);
}

static void run_short_request(struct lane *lane, uint32_t *times)
{
	struct sockaddr_storage address;
	socklen_t length = target(lane, &address);
	int fd = lane->fresh;
	uint64_t start = now();

	if (connect(fd, (struct sockaddr *)&address, length))
		die("connect");
	exchange(fd);
	reset(fd);
	*times = now() - start;
}

static int listen_at(in_port_t port)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	int fd = new_socket(AF_INET6, SOCK_STREAM), off = 0, on = 1, room = BUFFER_BYTES;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on,
		   sizeof(on)); /* an earlier client's TIME_WAIT */
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(fd, (struct sockaddr *)&any, sizeof(any)) || listen(fd, 4096))
		die("listen");
	return fd;
}

static void answer(int fd)
{
	static char response[RESPONSE_BYTES];

	if (recv(fd, response, sizeof(response), MSG_DONTWAIT) <= 0 ||
	    send(fd, response, sizeof(response), MSG_NOSIGNAL) != RESPONSE_BYTES)
		close(fd); /* the client is done with it */
}

static noreturn void serve(int listener)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = listener }, ready[64];
	int queue = epoll_create1(EPOLL_CLOEXEC);
	cpu_set_t others;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sched_getaffinity(0, sizeof(others), &others);
	CPU_CLR(sched_getcpu(), &others); /* the client stays on this one */
	sched_setaffinity(0, sizeof(others), &others);
	if (queue < 0 || epoll_ctl(queue, EPOLL_CTL_ADD, listener, &event))
		die("epoll");
	for (;;) {
		int count = epoll_wait(queue, ready, 64, -1);

		for (int i = 0; i < count; i++) {
			if (ready[i].data.fd != listener) {
				answer(ready[i].data.fd);
				continue;
			}
			event.data.fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
			if (event.data.fd >= 0)
				epoll_ctl(queue, EPOLL_CTL_ADD, event.data.fd, &event);
		}
	}
}

void set_up_server(struct place *place)
{
	int listener;

	place->listener = listen_at(LISTENER_PORT);
	if (!place->has_server)
		return;
	listener = listen_at(SERVER_PORT);
	switch (fork()) {
	case -1:
		die("fork");
	case 0:
		serve(listener);
	default:
		close(listener);
	}
}

const struct operation stream_operation = { "stream", 1, RENEWED, make_kept_socket, run_stream };
const struct operation request_operation = { "request", 1, RENEWED, make_kept_socket, run_request };
const struct operation short_request_operation = { "short-request", 1, 1, make_socket,
						   run_short_request };
