/* memload ADDR PORT CONNECTIONS MILLISECONDS get|set BYTES: asks memcached again
 * and again on so many connections, one request at a time on each, in one
 * thread, and prints how many requests were answered rightly and wrongly, how
 * long that took in ns, and the latencies' median and 99th percentile in ns. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 1024, MAX_BYTES = 1 << 20, MAX_SAMPLES = 1 << 22 };

struct connection {
	int fd;
	size_t left; /* of the answer, in bytes */
	char head;   /* its first byte */
	uint64_t sent;
};

static char request[MAX_BYTES + 64];
static size_t request_len, answer_len;
static char answer_head;
static uint32_t samples[MAX_SAMPLES];

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * UINT64_C(1000000000) + t.tv_nsec;
}

static void die(const char *what)
{
	fprintf(stderr, "memload: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void send_all(int fd)
{
	size_t done = 0;
	while (done < request_len) {
		ssize_t n = send(fd, request + done, request_len - done, MSG_NOSIGNAL);
		if (n < 0 && errno != EINTR)
			die("send");
		if (n > 0)
			done += n;
	}
}

static void begin(struct connection *c)
{
	c->left = answer_len;
	c->sent = now();
	send_all(c->fd);
}

/* receive returns whether the answer is complete. */
static int receive(struct connection *c)
{
	static char buf[1 << 16];
	ssize_t n = recv(c->fd, buf, c->left < sizeof buf ? c->left : sizeof buf, 0);

	if (n == 0) {
		fprintf(stderr, "memload: the server has closed a connection\n");
		exit(1);
	}
	if (n < 0)
		die("recv");
	if (c->left == answer_len)
		c->head = buf[0];
	return (c->left -= n) == 0;
}

static int open_connection(const struct sockaddr_in *a)
{
	int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

	if (fd < 0 || connect(fd, (const struct sockaddr *)a, sizeof *a) < 0)
		die("connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	return fd;
}

/* store makes the value that is asked for. */
static void store(const struct sockaddr_in *a, size_t bytes)
{
	struct connection c = {.fd = open_connection(a)};

	request_len = sprintf(request, "set key 0 0 %zu\r\n", bytes);
	memset(request + request_len, 'v', bytes);
	memcpy(request + request_len + bytes, "\r\n", 2);
	request_len += bytes + 2;
	answer_len = strlen("STORED\r\n");
	answer_head = 'S';
	begin(&c);
	while (!receive(&c))
		;
	if (c.head != answer_head) {
		fprintf(stderr, "memload: the value was not stored\n");
		exit(1);
	}
	close(c.fd);
}

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	static struct connection all[MAX_CONNECTIONS];
	struct sockaddr_in a = {.sin_family = AF_INET};
	struct epoll_event ready[64];
	uint64_t good = 0, bad = 0, start, end, until;
	size_t connections, bytes, kept;
	int set, epoll;

	if (argc != 7 || inet_pton(AF_INET, argv[1], &a.sin_addr) != 1 || (connections = atoi(argv[3])) < 1 ||
	    connections > MAX_CONNECTIONS || (bytes = atoi(argv[6])) < 1 || bytes > MAX_BYTES - 64) {
		fprintf(stderr, "usage: memload ADDR PORT CONNECTIONS MILLISECONDS get|set BYTES\n");
		return 2;
	}
	a.sin_port = htons(atoi(argv[2]));
	set = !strcmp(argv[5], "set");
	store(&a, bytes);
	if (!set) {
		char head[64];
		request_len = sprintf(request, "get key\r\n");
		answer_len = sprintf(head, "VALUE key 0 %zu\r\n", bytes) + bytes + strlen("\r\nEND\r\n");
		answer_head = 'V';
	}
	epoll = epoll_create1(0);
	start = now();
	until = start + strtoull(argv[4], NULL, 10) * UINT64_C(1000000);
	for (size_t i = 0; i < connections; i++) {
		struct epoll_event e = {.events = EPOLLIN, .data.ptr = &all[i]};
		all[i].fd = open_connection(&a);
		if (epoll_ctl(epoll, EPOLL_CTL_ADD, all[i].fd, &e) < 0)
			die("epoll_ctl");
		begin(&all[i]);
	}
	for (size_t waiting = connections; waiting > 0;) {
		int n = epoll_wait(epoll, ready, 64, 10000);
		if (n == 0) {
			fprintf(stderr, "memload: no answer for 10 s\n");
			return 1;
		}
		if (n < 0 && errno != EINTR)
			die("epoll_wait");
		for (int i = 0; i < n; i++) {
			struct connection *c = ready[i].data.ptr;
			uint64_t t;
			if (!receive(c))
				continue;
			t = now();
			if (c->head != answer_head) {
				bad++;
			} else {
				samples[good++ % MAX_SAMPLES] = t - c->sent;
			}
			if (t < until)
				begin(c);
			else
				waiting--;
		}
	}
	end = now();
	kept = good < MAX_SAMPLES ? good : MAX_SAMPLES;
	if (kept == 0) {
		fprintf(stderr, "memload: no request was answered\n");
		return 1;
	}
	qsort(samples, kept, sizeof *samples, by_size);
	printf("%llu %llu %llu %u %u\n", (unsigned long long)good, (unsigned long long)bad,
	       (unsigned long long)(end - start), samples[kept / 2], samples[kept - 1 - kept / 100]);
	return 0;
}
