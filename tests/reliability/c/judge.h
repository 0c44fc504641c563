/* SPDX-License-Identifier: Apache-2.0 */
/* What the client knows of its targets, and whether a call led where it may lead: see dials.c. */
#ifndef JUDGE_H
#define JUDGE_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <stdnoreturn.h>
#include <string.h>
#include <sys/socket.h>

#define MAX_TARGETS 16
#define MAX_CLIENTS 8
#define KEPT 48 /* open sockets of each target */
#define BACKEND_PORT 8080
#define TOLD 12

struct shared {
	uint64_t stop;
	struct {
		uint64_t begun, done;
	} target[MAX_TARGETS];
	struct {
		uint64_t calls, wrong;
		uint64_t seen[MAX_TARGETS]; /* the latest generation that a call led to */
	} client[MAX_CLIENTS];
};

enum kind {
	TCP,
	UDP,
	DATAGRAM
};

struct kept {
	int fd, accepted;
	struct in6_addr backend;
	bool open;
};

struct target {
	enum kind kind;
	int family;
	struct sockaddr_storage frontend;
	socklen_t length;
	unsigned int first, sets;
	struct in6_addr only; /* of affinity: the backend of all calls */
	bool has_only;
	uint64_t calls, connects, in_switch, asked, ended, unheard;
	struct kept kept[KEPT];
};

static struct target targets[MAX_TARGETS];
static int target_count;
static struct shared *shared;
static int own; /* which client */
static int listeners[2], receivers[2]; /* IPv4, IPv6 */
static uint64_t wrong_count;

static noreturn void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static uint32_t random_below(uint32_t limit)
{
	static uint64_t state;

	if (!state)
		state = 0x9e3779b97f4a7c15ull + own;
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 32) % limit;
}

static uint64_t load(uint64_t *from)
{
	return __atomic_load_n(from, __ATOMIC_SEQ_CST);
}

static void wrong(struct target *target, const char *what, const struct in6_addr *backend)
{
	char text[INET6_ADDRSTRLEN] = "-";
	static const char *const names[] = { "tcp", "udp", "datagram" };

	if (backend)
		inet_ntop(AF_INET6, backend, text, sizeof(text));
	if (wrong_count++ < TOLD)
		printf("wrong %s to target %d: %s, backend %s\n", names[target->kind],
		       (int)(target - targets), what, text);
	__atomic_store_n(&shared->client[own].wrong, wrong_count, __ATOMIC_SEQ_CST);
}

static void wrong_errno(struct target *target, const char *call)
{
	char text[128];

	snprintf(text, sizeof(text), "%s: %s", call, strerrorname_np(errno));
	wrong(target, text, NULL);
}

static void mapped_of(const struct sockaddr_storage *from, struct in6_addr *to)
{
	if (from->ss_family == AF_INET6) {
		*to = ((const struct sockaddr_in6 *)from)->sin6_addr;
		return;
	}
	memset(to, 0, sizeof(*to));
	memset(&to->s6_addr[10], 0xff, 2);
	memcpy(&to->s6_addr[12], &((const struct sockaddr_in *)from)->sin_addr, 4);
}

static bool is_frontend(const struct target *target, const struct sockaddr_storage *address)
{
	struct in6_addr found, wanted;

	mapped_of(address, &found);
	mapped_of(&target->frontend, &wanted);
	/* The port is at the same place in both families. */
	return !memcmp(&found, &wanted, sizeof(found)) &&
	       ((const struct sockaddr_in *)address)->sin_port ==
		       ((const struct sockaddr_in *)&target->frontend)->sin_port;
}

/* The set that a backend is of; -1: none of this target's. */
static int set_of(const struct target *target, const struct in6_addr *backend)
{
	static const unsigned char ipv4[] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 244 };
	static const unsigned char ipv6[] = { 0xfd, 0x44, 0, 0x10, 2, 0x44, 0, 0, 0, 0, 0, 0 };
	bool is_ipv4 = target->family == AF_INET;
	int number;

	if (memcmp(backend, is_ipv4 ? ipv4 : ipv6, is_ipv4 ? sizeof(ipv4) : sizeof(ipv6)))
		return -1;
	number = is_ipv4 ? backend->s6_addr[14] : backend->s6_addr[12] << 8 | backend->s6_addr[13];
	number -= target->first;
	return number >= 0 && number < (int)(target->sets ? target->sets : 1) ? number : -1;
}

/* Whether a call that began with generation `earliest` done may have led there. */
static void judge(struct target *target, const struct in6_addr *backend, uint64_t earliest)
{
	int index = target - targets, set = set_of(target, backend);
	uint64_t latest = load(&shared->target[index].begun), g;

	target->calls++;
	target->in_switch += latest != earliest;
	if (set < 0)
		return wrong(target, "a stranger", backend);
	if (!target->sets) {
		if (target->has_only && memcmp(&target->only, backend, sizeof(*backend)))
			return wrong(target, "affinity was not kept", backend);
		target->only = *backend;
		target->has_only = true;
		return;
	}
	for (g = latest; g + target->sets > latest; g--) {
		if ((int)(g % target->sets) == set) {
			__atomic_store_n(&shared->client[own].seen[index], g, __ATOMIC_SEQ_CST);
			return;
		}
		if (g <= earliest)
			break;
	}
	wrong(target, "neither in the set before nor in the one after", backend);
}

static void ask_peer(struct target *target, int fd, const struct in6_addr *backend)
{
	struct sockaddr_storage peer;
	socklen_t length = sizeof(peer);

	target->asked++;
	if (getpeername(fd, (struct sockaddr *)&peer, &length))
		wrong_errno(target, "getpeername");
	else if (!is_frontend(target, &peer))
		wrong(target, "getpeername() does not show the Service", backend);
}

#endif
