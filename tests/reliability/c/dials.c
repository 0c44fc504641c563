/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dials COUNT CPU CLIENT SHARED CGROUP_PROCS TARGET...
 *
 * Dials Services as fast as it can, COUNT times (0: until told to stop), and holds each call against where it
 * may lead. Client and servers are this one process in a namespace whose loopback has every backend's
 * address: a TCP handshake ends inside connect(), a datagram has mostly arrived when sendto() returns; if the kernel
 * left that to ksoftirqd, it is waited for. One that finds no receiver is judged by where it went.
 *
 * TARGET is KIND,FRONTEND,PORT,FIRST,SETS: KIND is tcp, udp (connected) or datagram (not connected). The
 * Service moves from set to set, of which it has SETS: in generation g it may lead to the backends of set
 * g % SETS, 10.244.(FIRST + set).x or fd44:10:244::(FIRST + set):x. Whoever switches stores g in `begun` before
 * and in `done` after it, so a call may see the generations from `done` before it to `begun` after it and no
 * other. With SETS 0 the Service has client affinity: all calls lead to one backend.
 *
 * Some sockets stay open, are asked again and again whom they talk to, and asked to talk. A connected UDP socket
 * whose backend went between its connect() and its send() has to be ended, which send() tells: those are counted.
 * Writes one line `NAME NUMBER` for each thing that it counted, and `wrong TEXT` for the first things that were.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "datagram.h"

#define KEEP_EVERY 61

static void reset(int fd)
{
	struct linger at_once = { .l_onoff = 1, .l_linger = 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	close(fd);
}

static bool is_kept(const struct target *target)
{
	/* Connected UDP sockets on removed backends are ended, and should be. */
	return target->kind == TCP || !target->sets || target->sets == 1;
}

static void let_go(struct kept *kept)
{
	if (kept->accepted >= 0) {
		reset(kept->fd);
		close(kept->accepted);
	} else {
		close(kept->fd);
	}
}

static void keep_or_close(struct target *target, int fd, int accepted,
			  const struct in6_addr *backend)
{
	struct kept now = { fd, accepted, *backend, true };
	struct kept *place = &target->kept[random_below(KEPT)];

	if (!is_kept(target) || (place->open && random_below(KEEP_EVERY)))
		return let_go(&now);
	if (place->open)
		let_go(place);
	*place = now;
}

static void ask_kept(struct target *target)
{
	struct kept *kept = &target->kept[random_below(KEPT)];
	int index = target - targets;

	if (!kept->open)
		return;
	if (target->kind == DATAGRAM)
		exchange_datagram(target, kept->fd, load(&shared->target[index].done));
	else
		ask_peer(target, kept->fd, &kept->backend);
}

/*
 * inet_diag ends a socket with ECONNABORTED and leaves it unconnected; its backend has gone only if a switch has
 * begun meanwhile.
 */
static bool may_be_ended(struct target *target, int error, uint64_t earliest)
{
	return (error == ECONNABORTED || error == EDESTADDRREQ) &&
	       load(&shared->target[target - targets].begun) != earliest;
}

static void dial(struct target *target)
{
	uint64_t earliest = load(&shared->target[target - targets].done);
	int fd = socket(target->family,
			(target->kind == TCP ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0);
	struct in6_addr backend = {};
	int accepted = -1;

	if (fd < 0)
		die("socket");
	if (target->kind != TCP)
		hear_of_loss(fd, target->family);
	if (target->kind == DATAGRAM) {
		exchange_datagram(target, fd, earliest);
		return keep_or_close(target, fd, -1, &backend);
	}
	if (connect(fd, (struct sockaddr *)&target->frontend, target->length)) {
		wrong_errno(target, "connect");
		close(fd);
		return;
	}
	if (target->kind == TCP) {
		struct sockaddr_storage self;
		socklen_t length = sizeof(self);

		accepted = accept4(listeners[target->family == AF_INET6], NULL, NULL, SOCK_CLOEXEC);
		if (accepted < 0 || getsockname(accepted, (struct sockaddr *)&self, &length))
			die("accept");
		mapped_of(&self, &backend);
	} else if (send(fd, "x", 1, 0) != 1) {
		if (may_be_ended(target, errno, earliest))
			target->ended++;
		else
			wrong_errno(target, "send");
		close(fd);
		return;
	} else if (!receive(target, fd, &backend, false)) {
		judge_loss(target, fd, earliest);
		close(fd);
		return;
	}
	judge(target, &backend, earliest);
	target->connects++;
	ask_peer(target, fd, &backend);
	keep_or_close(target, fd, accepted, &backend);
}

static void serve(int family)
{
	struct sockaddr_storage any = { .ss_family = family };
	socklen_t length =
		family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
	bool ipv6 = family == AF_INET6;
	int on = 1, listener = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0),
	    receiver = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	((struct sockaddr_in *)&any)->sin_port = htons(BACKEND_PORT);
	if (ipv6) {
		setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
		setsockopt(receiver, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
		setsockopt(receiver, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof(on));
		setsockopt(receiver, IPPROTO_IPV6, IPV6_FREEBIND, &on, sizeof(on));
	} else {
		setsockopt(receiver, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on));
	}
	if (bind(listener, (struct sockaddr *)&any, length) || listen(listener, 64) ||
	    bind(receiver, (struct sockaddr *)&any, length))
		die("serve");
	hear_of_loss(receiver, family);
	listeners[ipv6] = listener;
	receivers[ipv6] = receiver;
}

static void parse_target(char *text)
{
	struct target *target = &targets[target_count++];
	const char *kind = strsep(&text, ","), *address = strsep(&text, ",");
	struct sockaddr_in *ipv4 = (struct sockaddr_in *)&target->frontend;
	struct sockaddr_in6 *ipv6 = (struct sockaddr_in6 *)&target->frontend;

	target->kind = !strcmp(kind, "tcp") ? TCP : !strcmp(kind, "udp") ? UDP : DATAGRAM;
	target->family = strchr(address, ':') ? AF_INET6 : AF_INET;
	target->frontend.ss_family = target->family;
	target->length = target->family == AF_INET ? sizeof(*ipv4) : sizeof(*ipv6);
	if (inet_pton(target->family, address,
		      target->family == AF_INET ? (void *)&ipv4->sin_addr :
						  (void *)&ipv6->sin6_addr) != 1)
		die(address);
	ipv4->sin_port = htons(atoi(strsep(&text, ",")));
	target->first = atoi(strsep(&text, ","));
	target->sets = atoi(text);
}

static void stay_on(int cpu)
{
	cpu_set_t only;

	CPU_ZERO(&only);
	CPU_SET(cpu, &only);
	sched_setaffinity(0, sizeof(only), &only); /* where there are fewer CPUs, anywhere */
}

static void told(const char *name, uint64_t number)
{
	printf("%s %llu\n", name, (unsigned long long)number);
}

int main(int count, char **words)
{
	uint64_t wanted, calls = 0, connects = 0, in_switch = 0, asked = 0, ended = 0, unheard = 0;
	int handle, i;

	if (count < 7 || count - 6 > MAX_TARGETS) {
		fprintf(stderr, "usage: dials COUNT CPU CLIENT SHARED CGROUP_PROCS TARGET...\n");
		return 2;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	wanted = strtoull(words[1], NULL, 10);
	if (!wanted && nice(10) < 0) /* it dials beside others, who must get on */
		die("nice");
	stay_on(atoi(words[2]));
	own = atoi(words[3]);
	handle = open(words[4], O_RDWR | O_CLOEXEC);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, handle, 0);
	if (handle < 0 || shared == MAP_FAILED)
		die(words[4]);
	for (i = 6; i < count; i++)
		parse_target(words[i]);
	serve(AF_INET);
	serve(AF_INET6);
	/* Servers stay outside: only what is made from here on is hooked. */
	handle = open(words[5], O_WRONLY | O_CLOEXEC);
	if (handle < 0 || write(handle, "0", 1) != 1)
		die(words[5]);
	while (!load(&shared->stop) && (!wanted || calls < wanted)) {
		struct target *target = &targets[calls % target_count];

		dial(target);
		if (random_below(2))
			ask_kept(&targets[random_below(target_count)]);
		calls++;
		__atomic_store_n(&shared->client[own].calls, calls, __ATOMIC_SEQ_CST);
	}
	for (i = 0; i < target_count; i++) {
		connects += targets[i].connects;
		in_switch += targets[i].in_switch;
		asked += targets[i].asked;
		ended += targets[i].ended;
		unheard += targets[i].unheard;
	}
	told("calls", calls);
	told("connects", connects);
	told("in_switch", in_switch);
	told("asked", asked);
	told("ended", ended);
	told("unheard", unheard);
	told("wrong_count", wrong_count);
	return 0;
}
