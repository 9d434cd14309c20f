/* Threads that compute with thread-local data, a signal handler, a child by
 * fork, and memory that is touched and given back. */
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 16, ROUNDS = 200000, STRIDE = 4096, SIZE = 64 << 20 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static double sum;
static long rounds;
static __thread long own;
static volatile sig_atomic_t handled;

static void handler(int sig) { handled += sig == SIGUSR1; }

static void *work(void *arg)
{
	double part = 0;

	for (int i = 1; i <= ROUNDS; i++, own++)
		part += floor(1000 * sin(i * 0.001 * (long)arg));
	pthread_mutex_lock(&lock);
	sum += part; /* whole numbers: the order does not matter */
	rounds += own;
	pthread_mutex_unlock(&lock);
	return 0;
}

static int child(void)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		own = 42;
		_exit(own);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	return WEXITSTATUS(status);
}

static long touch(void)
{
	char *p = malloc(SIZE);
	long n = 0;

	memset(p, 7, SIZE);
	for (long i = 0; i < SIZE; i += STRIDE)
		n += p[i];
	free(p);
	return n;
}

int main(void)
{
	pthread_t threads[THREADS];

	signal(SIGUSR1, handler);
	for (long i = 0; i < THREADS; i++)
		pthread_create(&threads[i], 0, work, (void *)(i + 1));
	for (int i = 0; i < 100; i++)
		kill(getpid(), SIGUSR1), raise(SIGUSR1);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], 0);
	printf("sum %.0f rounds %ld signals %s\n", sum, rounds, handled >= 100 ? "ok" : "lost");
	printf("child %d touched %ld\n", child(), touch());
	return 0;
}
