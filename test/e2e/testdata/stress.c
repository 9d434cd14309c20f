/* A program that is hard on an execution engine: threads that compare their
 * registers before and after system calls, fault, map and compute, while others
 * signal them and fork. It ends after argv[1] seconds with "ok" and counts, or
 * at once with what went wrong. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { COMPARING = 3, MAPPING = 2, THREADS = COMPARING + MAPPING + 1 };

static volatile int stop;
static long calls, faults, handled, forks;
static pthread_t threads[THREADS];

static void fail(const char *what)
{
	fprintf(stderr, "%s\n", what);
	_exit(1);
}

static void count(long *n, long by) { __atomic_add_fetch(n, by, __ATOMIC_RELAXED); }

/* Spoils registers that the interrupted code uses: returning restores them. */
static void handler(int sig)
{
	count(&handled, 1);
	__asm__ volatile("pxor %%xmm0,%%xmm0\n pxor %%xmm7,%%xmm7\n pxor %%xmm15,%%xmm15\n xor %%r10,%%r10"
			 ::: "xmm0", "xmm7", "xmm15", "r10");
}

static void *compare(void *arg)
{
	unsigned long id = (unsigned long)arg + 1;
	unsigned char in[16][16], out[16][16];

	while (!stop) {
		register unsigned long r12 __asm__("r12") = id * 11, r13 __asm__("r13") = id * 7;
		register unsigned long r14 __asm__("r14") = id * 5, r15 __asm__("r15") = id * 3;
		unsigned long r8 = id * 13, r9 = id * 17;
		long pid;

		for (int i = 0; i < 16; i++)
			memset(in[i], i * 13 + id, 16);
		__asm__ volatile(
			"movdqu (%[in]),%%xmm0\n movdqu 16(%[in]),%%xmm1\n movdqu 112(%[in]),%%xmm7\n movdqu 240(%[in]),%%xmm15\n"
			"mov %[r8],%%r8\n mov %[r9],%%r9\n"
			"mov $39,%%eax\n syscall\n" /* getpid */
			"mov %%r8,%[r8]\n mov %%r9,%[r9]\n"
			"movdqu %%xmm0,(%[out])\n movdqu %%xmm1,16(%[out])\n movdqu %%xmm7,112(%[out])\n movdqu %%xmm15,240(%[out])\n"
			: "=&a"(pid), "+r"(r12), "+r"(r13), "+r"(r14), "+r"(r15), [r8] "+m"(r8), [r9] "+m"(r9)
			: [in] "r"(in), [out] "r"(out)
			: "rcx", "r8", "r9", "r11", "memory", "xmm0", "xmm1", "xmm7", "xmm15");
		if (pid != getpid())
			fail("a system call returned nonsense");
		if (r8 != id * 13 || r9 != id * 17 || r12 != id * 11 || r13 != id * 7 || r14 != id * 5 || r15 != id * 3)
			fail("a system call changed a register");
		static const int checked[] = { 0, 1, 7, 15 };
		for (int i = 0; i < 4; i++)
			if (memcmp(in[checked[i]], out[checked[i]], 16))
				fail("a system call changed a vector register");
		count(&calls, 1);
	}
	return 0;
}

static void *map(void *arg)
{
	enum { PAGES = 64, SIZE = PAGES * 4096 };

	while (!stop) {
		char *p = mmap(0, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p == MAP_FAILED)
			fail("mmap");
		for (int i = 0; i < PAGES; i++)
			p[i * 4096] = i;
		if (mprotect(p, SIZE, PROT_READ))
			fail("mprotect");
		for (int i = 0; i < PAGES; i++)
			if (p[i * 4096] != i)
				fail("memory changed");
		munmap(p, SIZE);
		count(&faults, PAGES);
	}
	return 0;
}

static double sum(void)
{
	volatile double s = 0;

	for (int i = 1; i < 100000; i++)
		s += 1.0 / i;
	return s;
}

static void *compute(void *arg)
{
	double first = sum();

	while (!stop)
		if (sum() != first)
			fail("a sum changed");
	return 0;
}

static void *signaller(void *arg)
{
	while (!stop) {
		for (int i = 0; i < THREADS; i++)
			pthread_kill(threads[i], SIGUSR1);
		usleep(200);
	}
	return 0;
}

static void *forker(void *arg)
{
	while (!stop) {
		int status;
		pid_t pid = fork();

		if (pid == 0)
			_exit(7);
		if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 7)
			fail("fork");
		count(&forks, 1);
		usleep(20000);
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = handler, .sa_flags = SA_RESTART };
	struct timespec time = { .tv_sec = argc > 1 ? atoi(argv[1]) : 1 };
	pthread_t others[2];

	sigaction(SIGUSR1, &action, 0);
	for (long i = 0; i < THREADS; i++)
		pthread_create(&threads[i], 0, i < COMPARING ? compare : i < COMPARING + MAPPING ? map : compute, (void *)i);
	pthread_create(&others[0], 0, signaller, 0);
	pthread_create(&others[1], 0, forker, 0);
	while (nanosleep(&time, &time))
		;
	stop = 1;
	for (int i = 0; i < 2; i++)
		pthread_join(others[i], 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], 0);
	if (!calls || !faults || !handled || !forks)
		fail("a thread did nothing");
	printf("ok calls=%ld faults=%ld signals=%ld forks=%ld\n", calls, faults, handled, forks);
	return 0;
}
