/* SPDX-License-Identifier: Apache-2.0 */
/*
 * moved COUNT [MOVE]
 *
 * Sends COUNT datagrams over loopback to a socket of its own, and tells how many did not arrive. With MOVE a
 * second thread connects and closes sockets that share the receiver's place in the kernel's table: a lookup
 * that is at one of them when it moves to another place does not come to the receiver. No hook is involved.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <stdnoreturn.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT 8080
#define SAME_PLACE \
	(PORT + 2 * 16384) /* of tables of up to 16384 places: places are XORed with the port */
#define PATIENCE 500 /* milliseconds */

static volatile bool stop;

static noreturn void die(const char *what)
{
	perror(what);
	exit(1);
}

static int bound(uint16_t port)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	if (bind(fd, (struct sockaddr *)&any, sizeof(any)))
		die("bind");
	return fd;
}

static void stay_on(int cpu)
{
	cpu_set_t only;

	CPU_ZERO(&only);
	CPU_SET(cpu, &only);
	sched_setaffinity(0, sizeof(only), &only); /* where there are fewer CPUs, anywhere */
}

static void *move(void *unused)
{
	struct sockaddr_in elsewhere = { .sin_family = AF_INET,
					 .sin_port = htons(9),
					 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	stay_on(1);
	while (!stop) {
		int fd = bound(SAME_PLACE);

		if (connect(fd, (struct sockaddr *)&elsewhere, sizeof(elsewhere)))
			die("connect");
		close(fd);
	}
	return unused;
}

int main(int count, char **words)
{
	struct sockaddr_in to = { .sin_family = AF_INET,
				  .sin_port = htons(PORT),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	long left = atol(words[1]), lost = 0;
	int receiver = bound(PORT), sender = socket(AF_INET, SOCK_DGRAM, 0);
	struct pollfd wanted = { .fd = receiver, .events = POLLIN };
	pthread_t mover;
	char byte = 'x';

	if (count > 2 && pthread_create(&mover, NULL, move, NULL))
		die("pthread_create");
	stay_on(0);
	while (left--) {
		if (sendto(sender, &byte, 1, 0, (struct sockaddr *)&to, sizeof(to)) != 1)
			die("sendto");
		if (poll(&wanted, 1, PATIENCE) != 1)
			lost++;
		else if (recv(receiver, &byte, 1, 0) != 1)
			die("recv");
	}
	stop = true;
	if (count > 2)
		pthread_join(mover, NULL);
	printf("%ld\n", lost);
	return 0;
}
