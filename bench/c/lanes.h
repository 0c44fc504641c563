/* SPDX-License-Identifier: Apache-2.0 */
/* Calls timed side by side: each lane makes the same kind of call, differing in one thing. */
#ifndef KUBESOCK_BENCH_LANES_H
#define KUBESOCK_BENCH_LANES_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdnoreturn.h>
#include <sys/socket.h>

#define MAX_LANES 24
#define MAX_PLACES 4
#define MAX_COLUMNS 3

struct lane;

/*
 * What a lane does. make() makes its socket, in the lane's cgroup and network namespace, before each round or
 * once. run() times the call, and leaves nothing behind that make() would make again.
 */
struct operation {
	const char *name;
	int columns; /* times in a sample */
	int lifetime; /* rounds that a socket lasts; 0: all */
	void (*make)(struct lane *lane);
	void (*run)(struct lane *lane, uint32_t *times);
};

struct place { /* the network namespace of a client, and of the servers that it talks to */
	const char *text;
	int client, server;
	int listener; /* TCP, accepted from by the client itself: nobody has to wake up */
	bool has_server; /* a process that answers requests */
};

struct lane {
	const struct operation *operation;
	bool hooked;
	struct place *place;
	int family, type;
	struct in6_addr
		first; /* IPv4 as v4-mapped; `count` addresses in a row are dialled at random */
	uint32_t count;
	in_port_t port;
	struct in6_addr answerer; /* of datagrams; unspecified: nobody answers */

	int fresh; /* made for this round */
	int socket, peer; /* kept */
	struct sockaddr_storage address;
};

extern const struct operation connect_operation, reconnect_operation, self_datagram_operation,
	trip_operation;
extern const struct operation getpeername_operation, accept_operation;
extern const struct operation stream_operation, request_operation, short_request_operation;

/* Where requests are answered: port of the server, and sizes that client and server agree on. */
enum {
	LISTENER_PORT = 8080,
	SERVER_PORT = 8081,
	REQUEST_BYTES = 120,
	RESPONSE_BYTES = 1024
};

noreturn void die(const char *what);
uint64_t now(void);
uint32_t random_below(uint32_t limit);

int new_socket(int family, int type);
socklen_t target(const struct lane *lane, struct sockaddr_storage *address);
void connect_lane(struct lane *lane, int fd);
void bind_lane(struct lane *lane, int fd);
int accept_from(const struct place *place);
void reset(int fd);
void drop(struct lane *lane);
void set_up_server(struct place *place);
void set_up_answerer(struct lane *lane, const struct lane *before);

#endif
