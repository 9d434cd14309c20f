/* udpecho ADDR PORT [spin]: sends every datagram back to where it came from.
 * It blocks in recvfrom, or with "spin" asks again and again. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
	static char buf[65536];
	struct sockaddr_in a = {.sin_family = AF_INET};
	int fd, flags = 0;

	if (argc < 3 || inet_pton(AF_INET, argv[1], &a.sin_addr) != 1) {
		fprintf(stderr, "usage: udpecho ADDR PORT [spin]\n");
		return 2;
	}
	a.sin_port = htons(atoi(argv[2]));
	if (argc > 3 && !strcmp(argv[3], "spin"))
		flags = MSG_DONTWAIT;
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0) {
		perror("udpecho: bind");
		return 1;
	}
	for (;;) {
		socklen_t len = sizeof a;
		ssize_t n = recvfrom(fd, buf, sizeof buf, flags, (struct sockaddr *)&a, &len);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n < 0 || sendto(fd, buf, n, 0, (struct sockaddr *)&a, len) < 0) {
			perror("udpecho");
			return 1;
		}
	}
}
