/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lanes ROUNDS BLOCK CGROUP_HOOKED CGROUP_PLAIN LANE...
 *
 * LANE is OPERATION,hooked|plain,CLIENT;SERVER,tcp|udp,ADDRESS,COUNT,PORT,ANSWERER, where CLIENT and SERVER are
 * network namespaces. In each round every lane makes one call, in an order drawn anew; so whatever disturbs the
 * machine disturbs all lanes alike, and lanes can be compared round by round. The socket is made right before
 * its call, as applications do, inside CGROUP_HOOKED or CGROUP_PLAIN.
 *
 * Writes nanoseconds to standard output: a 32-bit number for each column of each lane, round after round.
 * BLOCK > 0 waits for a byte on standard input before each block of that many rounds, and flushes before it.
 */
#define _GNU_SOURCE
#include "lanes.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static const struct operation *const operations[] = {
	&connect_operation, &reconnect_operation,   &self_datagram_operation,
	&trip_operation,    &getpeername_operation, &accept_operation,
	&stream_operation,  &request_operation,	    &short_request_operation,
};

static struct place places[MAX_PLACES];
static struct lane lanes[MAX_LANES];
static int lane_count;
static int cgroups[2]; /* plain, hooked */
static int kinds; /* bit 0: there are plain lanes, bit 1: hooked ones */

noreturn void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

uint32_t random_below(uint32_t limit)
{
	static uint64_t state = 0x9e3779b97f4a7c15ull; /* xorshift64: the same draws in every run */

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 32) % limit;
}

static void enter_cgroup(bool hooked)
{
	if (write(cgroups[hooked], "0", 1) != 1)
		die("enter the cgroup");
}

static void enter_netns(int handle)
{
	if (setns(handle, CLONE_NEWNET))
		die("enter the network namespace");
}

static int open_netns(const char *path)
{
	int handle = open(path, O_RDONLY | O_CLOEXEC);

	if (handle < 0)
		die(path);
	return handle;
}

static struct place *place_of(const char *text)
{
	struct place *place = places;
	char *client, *server;

	while (place->text && strcmp(place->text, text))
		if (++place == places + MAX_PLACES)
			die("too many network namespaces");
	if (!place->text) {
		place->text = text;
		server = strdup(text);
		client = strsep(&server, ";");
		place->client = open_netns(client);
		place->server = server ? open_netns(server) : place->client;
	}
	return place;
}

static const char *next_field(char **rest)
{
	char *field = strsep(rest, ",");

	if (!field) {
		errno = EINVAL;
		die("lane");
	}
	return field;
}

/* Returns the address family. */
static int parse_address(const char *text, struct in6_addr *address)
{
	bool ipv6 = strchr(text, ':');

	memset(address, 0, sizeof(*address));
	if (!ipv6)
		memset(&address->s6_addr[10], 0xff, 2);
	if (inet_pton(ipv6 ? AF_INET6 : AF_INET, text, &address->s6_addr[ipv6 ? 0 : 12]) != 1) {
		errno = EINVAL;
		die(text);
	}
	return ipv6 ? AF_INET6 : AF_INET;
}

static void parse_lane(struct lane *lane, char *text)
{
	const char *name = next_field(&text), *answerer;

	for (size_t i = 0; i < sizeof(operations) / sizeof(*operations); i++)
		if (!strcmp(operations[i]->name, name))
			lane->operation = operations[i];
	if (!lane->operation) {
		errno = EINVAL;
		die(name);
	}
	lane->hooked = !strcmp(next_field(&text), "hooked");
	lane->place = place_of(next_field(&text));
	lane->type = !strcmp(next_field(&text), "tcp") ? SOCK_STREAM : SOCK_DGRAM;
	lane->family = parse_address(next_field(&text), &lane->first);
	lane->count = strtoul(next_field(&text), NULL, 10);
	lane->port = htons(strtoul(next_field(&text), NULL, 10));
	answerer = next_field(&text);
	if (*answerer)
		parse_address(answerer, &lane->answerer);
	lane->socket = lane->peer = -1;
	if (lane->operation == &request_operation || lane->operation == &short_request_operation)
		lane->place->has_server = true;
}

/*
 * A socket belongs to the cgroup that its process was in when it was made. Every lane is moved into twice, so that
 * what the moves leave in the caches is the same for all. Lanes of one kind need no moves.
 */
static void make(struct lane *lane)
{
	if (kinds == 3) {
		enter_cgroup(!lane->hooked);
		enter_cgroup(lane->hooked);
	}
	enter_netns(lane->place->client);
	lane->operation->make(lane);
}

static void run_round(uint32_t *row, long round)
{
	int order[MAX_LANES], column[MAX_LANES], columns = 0;

	for (int i = 0; i < lane_count; i++) {
		int j = random_below(i + 1);

		order[i] = order[j];
		order[j] = i;
		column[i] = columns;
		columns += lanes[i].operation->columns;
	}
	for (int i = 0; i < lane_count; i++) {
		struct lane *lane = &lanes[order[i]];
		int lifetime = lane->operation->lifetime;

		if (round == 0 || (lifetime && round % lifetime == 0))
			make(lane);
		lane->operation->run(lane, row + column[order[i]]);
	}
	if (fwrite(row, sizeof(*row), columns, stdout) != (size_t)columns)
		die("write the times");
}

static void stay_on_one_cpu(void)
{
	cpu_set_t only;

	CPU_ZERO(&only);
	CPU_SET(sched_getcpu(), &only);
	if (sched_setaffinity(0, sizeof(only), &only))
		die("sched_setaffinity");
}

int main(int count, char **words)
{
	struct rlimit files;
	uint32_t row[MAX_LANES * MAX_COLUMNS];
	long rounds, block;

	if (count < 6 || count - 5 > MAX_LANES) {
		fprintf(stderr, "usage: lanes ROUNDS BLOCK CGROUP_HOOKED CGROUP_PLAIN LANE...\n");
		return 2;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	rounds = strtol(words[1], NULL, 10);
	block = strtol(words[2], NULL, 10);
	for (int hooked = 0; hooked < 2; hooked++) {
		cgroups[hooked] = open(words[4 - hooked], O_WRONLY | O_CLOEXEC);
		if (cgroups[hooked] < 0)
			die(words[4 - hooked]);
	}
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	for (int i = 5; i < count; i++) {
		parse_lane(&lanes[lane_count], words[i]);
		kinds |= 1 << lanes[lane_count++].hooked;
	}

	enter_cgroup(false);
	for (struct place *place = places; place < places + MAX_PLACES && place->text; place++) {
		enter_netns(place->server);
		set_up_server(place);
	}
	for (struct lane *lane = lanes; lane < lanes + lane_count; lane++) {
		enter_netns(lane->place->server);
		if (lane->operation == &trip_operation)
			set_up_answerer(lane, lanes);
	}
	enter_cgroup(kinds >> 1); /* for good, where all lanes are of one kind */
	stay_on_one_cpu();
	for (long round = 0; round < rounds; round++) {
		char go;

		if (block && round % block == 0) {
			fflush(stdout);
			if (read(0, &go, 1) != 1)
				return 0;
		}
		run_round(row, round);
	}
	return 0;
}
