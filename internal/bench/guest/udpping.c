/* udpping ADDR PORT COUNT SIZE: sends COUNT datagrams of SIZE bytes, one after
 * another, and prints how long each answer took, in ns, or "lost" if none came
 * within a second. An answer to an earlier datagram is not taken for a later one's. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * UINT64_C(1000000000) + t.tv_nsec;
}

int main(int argc, char **argv)
{
	static unsigned char out[65536], in[65536];
	struct sockaddr_in a = {.sin_family = AF_INET};
	struct timeval second = {.tv_sec = 1};
	uint32_t i, count;
	size_t size;
	int fd;

	if (argc != 5 || inet_pton(AF_INET, argv[1], &a.sin_addr) != 1 ||
	    (size = atoi(argv[4])) < sizeof i || size > sizeof out) {
		fprintf(stderr, "usage: udpping ADDR PORT COUNT SIZE\n");
		return 2;
	}
	a.sin_port = htons(atoi(argv[2]));
	count = atoi(argv[3]);
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second) < 0 ||
	    connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
		perror("udpping: connect");
		return 1;
	}
	for (i = 0; i < count; i++) {
		ssize_t n;
		uint64_t sent = now();

		memcpy(out, &i, sizeof i);
		if (send(fd, out, size, 0) != (ssize_t)size && errno != ECONNREFUSED) {
			perror("udpping: send");
			return 1;
		}
		do
			n = recv(fd, in, sizeof in, 0);
		while (n >= 0 && (n != (ssize_t)size || memcmp(in, out, size)));
		if (n >= 0)
			printf("%llu\n", (unsigned long long)(now() - sent));
		else
			printf("lost\n");
	}
	return 0;
}
