/* Threads that compute without a system call, beside one that sleeps a
 * millisecond at a time, until each has had its turns: argv[1] threads, which
 * each see the sleeper wake argv[2] times. Prints "ok" and how often it woke. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { MOST = 64 };

static volatile long woke, seen[MOST];
static long wanted;

static void *spin(void *arg)
{
	long id = (long)arg, last = 0;

	while (seen[id] < wanted) {
		long now = woke;

		seen[id] += now != last;
		last = now;
	}
	return 0;
}

int main(int argc, char **argv)
{
	pthread_t threads[MOST];
	int n = argc > 2 ? atoi(argv[1]) : 0;

	if (n < 1 || n > MOST)
		return 2;
	wanted = atol(argv[2]);
	for (long i = 0; i < n; i++)
		pthread_create(&threads[i], 0, spin, (void *)i);
	for (int done = 0; !done; woke++) {
		usleep(1000);
		done = 1;
		for (int i = 0; i < n; i++)
			done &= seen[i] >= wanted;
	}
	for (int i = 0; i < n; i++)
		pthread_join(threads[i], 0);
	printf("ok %ld\n", woke);
	return 0;
}
