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
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <stdnoreturn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_TARGETS 16
#define MAX_CLIENTS 8
#define KEPT 48 /* open sockets of each target */
#define KEEP_EVERY 61
#define BACKEND_PORT 8080
#define TOLD 12
#define PATIENCE 5000 /* milliseconds */

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

static void reset(int fd)
{
	struct linger at_once = { .l_onoff = 1, .l_linger = 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	close(fd);
}

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
