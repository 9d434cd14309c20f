/* micro BATCH_US BATCHES FILE OPERATION...: measures what operations of the
 * kernel cost, and prints "OPERATION NS" for each: the median over BATCHES
 * batches, each as many operations as take BATCH_US microseconds. FILE is a
 * file of 4096 bytes or more. Every result of every call is checked. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MESSAGE = 64, PAGE = 4096, FRESH = 256 };

static char *self, *file;
static uint64_t excluded; /* ns of the batch that are not the operation's */

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * UINT64_C(1000000000) + t.tv_nsec;
}

static void need(int ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "micro: ");
	perror(what);
	exit(1);
}

static void getppid_run(long n)
{
	pid_t parent = getppid();

	while (n--)
		need(getppid() == parent, "getppid");
}

static void clock_run(long n)
{
	struct timespec t;

	while (n--)
		need(clock_gettime(CLOCK_MONOTONIC, &t) == 0, "clock_gettime");
}

/* A pipe, written and read by the same thread. */
static int there[2], back[2];
static char message[MESSAGE];

static void pipe_open(void) { need(pipe(there) == 0, "pipe"); }

static void pipe_close(void)
{
	close(there[0]);
	close(there[1]);
}

static void pass(int from, int to)
{
	need(write(to, message, MESSAGE) == MESSAGE, "write to a pipe");
	need(read(from, message, MESSAGE) == MESSAGE, "read from a pipe");
}

static void pipe_run(long n)
{
	while (n--)
		pass(there[0], there[1]);
}

/* Hand-offs: two threads, of which one at a time has something to do. Half a
 * round trip is one hand-off: waking the other thread, then sleeping. */
static pthread_t partner;

static void *pipe_partner(void *unused)
{
	char m[MESSAGE];

	while (read(there[0], m, MESSAGE) == MESSAGE)
		need(write(back[1], m, MESSAGE) == MESSAGE, "write to a pipe");
	return unused;
}

static void handoff_pipe_open(void)
{
	need(pipe(there) == 0 && pipe(back) == 0, "pipe");
	need(pthread_create(&partner, NULL, pipe_partner, NULL) == 0, "pthread_create");
}

static void handoff_pipe_run(long n)
{
	for (; n > 0; n -= 2)
		pass(back[0], there[1]);
}

static void handoff_pipe_close(void)
{
	close(there[1]);
	need(pthread_join(partner, NULL) == 0, "pthread_join");
	close(there[0]);
	close(back[0]);
	close(back[1]);
}

enum { MINE, PARTNERS, OVER };
static uint32_t turn;

static void give(uint32_t to)
{
	__atomic_store_n(&turn, to, __ATOMIC_SEQ_CST);
	need(syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0) >= 0, "futex wake");
}

/* Returns what is not other any more. EAGAIN: the turn changed before the wait. */
static uint32_t await_not(uint32_t other)
{
	uint32_t t;

	while ((t = __atomic_load_n(&turn, __ATOMIC_SEQ_CST)) == other)
		syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, other, NULL, NULL, 0);
	return t;
}

static void *futex_partner(void *unused)
{
	while (await_not(MINE) != OVER)
		give(MINE);
	return unused;
}

static void handoff_futex_open(void)
{
	turn = MINE;
	need(pthread_create(&partner, NULL, futex_partner, NULL) == 0, "pthread_create");
}

static void handoff_futex_run(long n)
{
	for (; n > 0; n -= 2) {
		give(PARTNERS);
		await_not(PARTNERS);
	}
}

static void handoff_futex_close(void)
{
	give(OVER);
	need(pthread_join(partner, NULL) == 0, "pthread_join");
}

/* Memory. */
static char *map_pages(size_t pages)
{
	char *p = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	need(p != MAP_FAILED, "mmap");
	return p;
}

static void mmap_run(long n)
{
	while (n--) {
		volatile char *p = map_pages(1);

		*p = 1;
		need(munmap((void *)p, PAGE) == 0, "munmap");
	}
}

/* The first write to each of many pages; mapping and unmapping them is not
 * counted. Without huge pages: they would be one fault in 512. */
static void fault_run(long n)
{
	for (; n > 0; n -= FRESH) {
		uint64_t before = now(), began, ended;
		volatile char *p = map_pages(FRESH);
		long i, pages = n < FRESH ? n : FRESH;

		madvise((void *)p, FRESH * PAGE, MADV_NOHUGEPAGE); /* only advice */
		began = now();
		for (i = 0; i < pages; i++)
			p[i * PAGE] = 1;
		ended = now();
		need(munmap((void *)p, FRESH * PAGE) == 0, "munmap");
		excluded += (began - before) + (now() - ended);
	}
}

/* A signal of a thread to itself: sent, handled, returned from. */
static volatile sig_atomic_t handled;

static void handler(int sig) { handled += sig == SIGUSR1; }

static void signal_open(void)
{
	struct sigaction a = {.sa_handler = handler};

	need(sigaction(SIGUSR1, &a, NULL) == 0, "sigaction");
}

static void signal_run(long n)
{
	pid_t pid = getpid(), tid = syscall(SYS_gettid);
	long i;

	for (handled = 0, i = 1; i <= n; i++) {
		need(syscall(SYS_tgkill, pid, tid, SIGUSR1) == 0, "tgkill");
		need(handled == i, "signal not handled on return from tgkill");
	}
}

/* Threads and processes. */
static void *nothing(void *unused) { return unused; }

static void thread_run(long n)
{
	pthread_t t;

	while (n--) {
		need(pthread_create(&t, NULL, nothing, NULL) == 0, "pthread_create");
		need(pthread_join(t, NULL) == 0, "pthread_join");
	}
}

static void reap(pid_t pid)
{
	int status;

	need(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0, "child");
}

static char *child_argv[] = {NULL, NULL}, *no_env[] = {NULL};

static void fork_run(long n)
{
	while (n--) {
		pid_t pid = fork();

		if (pid == 0) {
			execve(self, child_argv, no_env);
			_exit(1);
		}
		reap(pid);
	}
}

static void spawn_run(long n)
{
	while (n--) {
		pid_t pid;

		need(posix_spawn(&pid, self, NULL, NULL, child_argv, no_env) == 0, "posix_spawn");
		reap(pid);
	}
}

/* Files. */
static int fd, epoll_fd;

static void open_run(long n)
{
	while (n--) {
		int f = open(file, O_RDONLY);

		need(f >= 0 && close(f) == 0, file);
	}
}

static void stat_run(long n)
{
	struct stat st;

	while (n--)
		need(stat(file, &st) == 0 && st.st_size >= PAGE, file);
}

static void read_open(void) { need((fd = open(file, O_RDONLY)) >= 0, file); }
static void read_close(void) { close(fd); }

static void read_run(long n)
{
	static char page[PAGE];

	while (n--)
		need(pread(fd, page, PAGE, 0) == PAGE, file);
}

/* Asks for events of a pipe that has none. */
static void epoll_open(void)
{
	struct epoll_event e = {.events = EPOLLIN};

	pipe_open();
	need((epoll_fd = epoll_create1(0)) >= 0, "epoll_create1");
	need(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, there[0], &e) == 0, "epoll_ctl");
}

static void epoll_run(long n)
{
	struct epoll_event e;

	while (n--)
		need(epoll_wait(epoll_fd, &e, 1, 0) == 0, "epoll_wait");
}

static void epoll_close(void)
{
	close(epoll_fd);
	pipe_close();
}

static const struct operation {
	const char *name;
	void (*open)(void), (*run)(long n), (*close)(void);
} operations[] = {
	{"getppid", NULL, getppid_run, NULL},
	{"clock_gettime", NULL, clock_run, NULL},
	{"pipe", pipe_open, pipe_run, pipe_close},
	{"handoff_pipe", handoff_pipe_open, handoff_pipe_run, handoff_pipe_close},
	{"handoff_futex", handoff_futex_open, handoff_futex_run, handoff_futex_close},
	{"mmap", NULL, mmap_run, NULL},
	{"fault", NULL, fault_run, NULL},
	{"signal", signal_open, signal_run, NULL},
	{"thread", NULL, thread_run, NULL},
	{"fork_exec", NULL, fork_run, NULL},
	{"spawn", NULL, spawn_run, NULL},
	{"open_close", NULL, open_run, NULL},
	{"stat", NULL, stat_run, NULL},
	{"read_4k", read_open, read_run, read_close},
	{"epoll_wait", epoll_open, epoll_run, epoll_close},
};

/* Returns the ns that n operations take. */
static uint64_t batch(const struct operation *o, long n)
{
	uint64_t began = now(), taken;

	excluded = 0;
	o->run(n);
	taken = now() - began;
	return taken > excluded ? taken - excluded : 1;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Doubling finds how many operations a batch is, and warms up. */
static double measure(const struct operation *o, uint64_t batch_ns, int batches)
{
	double *each = calloc(batches, sizeof *each), median;
	long n = 2;
	int i;

	need(each != NULL, "calloc");
	if (o->open)
		o->open();
	while (batch(o, n) < batch_ns)
		n *= 2;
	for (i = 0; i < batches; i++)
		each[i] = (double)batch(o, n) / n;
	if (o->close)
		o->close();
	qsort(each, batches, sizeof *each, ascending);
	median = (each[(batches - 1) / 2] + each[batches / 2]) / 2;
	free(each);
	return median;
}

static const struct operation *find(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof operations / sizeof *operations; i++)
		if (!strcmp(operations[i].name, name))
			return &operations[i];
	fprintf(stderr, "micro: no operation %s\n", name);
	exit(2);
}

int main(int argc, char **argv)
{
	uint64_t batch_ns;
	int i, batches;

	if (argc == 0 || argc == 1)
		return 0; /* a child of fork_run or spawn_run */
	if (argc < 5 || (batch_ns = atoi(argv[1]) * UINT64_C(1000)) < 1 || (batches = atoi(argv[2])) < 1) {
		fprintf(stderr, "usage: micro BATCH_US BATCHES FILE OPERATION...\n");
		return 2;
	}
	self = child_argv[0] = argv[0];
	file = argv[3];
	for (i = 4; i < argc; i++) {
		printf("%s %.2f\n", argv[i], measure(find(argv[i]), batch_ns, batches));
		fflush(stdout);
	}
	return 0;
}
