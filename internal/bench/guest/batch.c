/* A batch job: computes for ever on as many threads as its argument says, and
 * prints a dot for each unit of work, of a millisecond or two. Who reads them
 * counts. */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

enum { UNIT = 1000000 };

static void *work(void *seed)
{
	uint64_t x = (uintptr_t)seed;

	for (;;) {
		for (int i = 0; i < UNIT; i++)
			x = x * 6364136223846793005u + 1442695040888963407u;
		if (write(1, x == 0 ? ":" : ".", 1) != 1)
			exit(1);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t;
	long threads = argc > 1 ? atol(argv[1]) : 1;

	for (long i = 1; i < threads; i++)
		if (pthread_create(&t, NULL, work, (void *)(uintptr_t)i))
			return 1;
	work(NULL);
}
