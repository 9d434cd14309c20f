/* Threads and processes: ends and execs while others run, and what memory they
 * share, which an engine may have mapped in two places. */
#include "conform.h"
#include <linux/aio_abi.h>
#include <alloca.h>
#include <linux/futex.h>

static volatile int spinning;

/* Makes no system call once it has begun. */
static void *spin(void *unused)
{
	__atomic_add_fetch(&spinning, 1, __ATOMIC_RELAXED);
	for (;;)
		;
	return 0;
}

static void spin_threads(int n)
{
	for (int i = 0; i < n; i++) {
		pthread_t t;

		must(!pthread_create(&t, 0, spin, 0), "pthread_create");
	}
	while (spinning < n)
		usleep(1000);
}

CASE(exit_while_threads_compute)
{
	spin_threads(4);
	exit(3);
}

static void *exit_group(void *unused)
{
	exit(4);
	return 0;
}

CASE(exit_of_a_thread_ends_all)
{
	pthread_t t;

	must(!pthread_create(&t, 0, exit_group, 0), "pthread_create");
	spin(0);
}

static void *executes(void *unused)
{
	execl("/proc/self/exe", "conform", "executed", (char *)0);
	must(0, "execl");
	return 0;
}

CASE(executed) { printf("executed, thread %d of process %d\n", (int)(syscall(SYS_gettid) - getpid()), getpid() == (pid_t)syscall(SYS_gettid)); }

CASE(exec_while_threads_compute)
{
	spin_threads(3);
	executes(0);
}

CASE(exec_of_a_thread_that_is_not_the_first)
{
	pthread_t t;

	spin_threads(2);
	must(!pthread_create(&t, 0, executes, 0), "pthread_create");
	spin(0);
}

CASE(killed_while_threads_compute)
{
	pid_t self = getpid();

	spin_threads(2);
	if (!fork()) {
		kill(self, SIGKILL);
		_exit(0);
	}
	spin(0);
}

static volatile int alarms;

static void on_alarm(int sig) { alarms++; }

CASE(process_signals_while_all_threads_compute)
{
	signal(SIGUSR1, on_alarm);
	spin_threads(2);
	pid_t self = getpid(), child = fork();
	if (!child) {
		for (int i = 0; i < 50; i++) {
			kill(self, SIGUSR1);
			usleep(1000);
		}
		_exit(0);
	}
	while (waitpid(child, 0, WNOHANG) != child)
		for (volatile int i = 0; i < 1000000; i++)
			;
	printf("%d\n", alarms > 0 && alarms <= 50);
}

static void *nothing(void *p) { return p; }

CASE(many_threads)
{
	long sum = 0;

	for (long i = 0; i < 500; i++) {
		pthread_t t;
		void *result;

		must(!pthread_create(&t, 0, nothing, (void *)i), "pthread_create");
		must(!pthread_join(t, &result), "pthread_join");
		sum += (long)result;
	}
	printf("%ld\n", sum);
}

CASE(first_thread_ends_first)
{
	pthread_t t;

	must(!pthread_create(&t, 0, exit_group, 0), "pthread_create");
	pthread_exit(0);
}

/* After a fork each has memory of its own. */
enum { PAGES = 200, SIZE = PAGES * 4096 };

static int differing(const volatile char *p, char want)
{
	int n = 0;

	for (int i = 0; i < PAGES; i++)
		n += p[i * 4096 + 17] != want;
	return n;
}

static void set(volatile char *p, char value)
{
	for (int i = 0; i < PAGES; i++)
		p[i * 4096 + 17] = value;
}

CASE(fork_copies_memory)
{
	char *p = map(SIZE, PROT_READ | PROT_WRITE);
	int wrong = 0;

	for (int round = 0; round < 20; round++) {
		int go[2], status;
		char c;

		set(p, round);
		must(!pipe(go), "pipe");
		pid_t child = fork();
		if (!child) {
			int bad;

			must(read(go[0], &c, 1) == 1, "read");
			bad = differing(p, round); /* the parent has changed its own */
			set(p, 100);
			_exit(bad + differing(p, 100) ? 1 : 0);
		}
		set(p, 50 + round);
		must(write(go[1], "x", 1) == 1, "write");
		wrong += differing(p, 50 + round);
		waitpid(child, &status, 0);
		wrong += status != 0;
		wrong += differing(p, 50 + round);
		close(go[0]), close(go[1]);
	}
	printf("%d wrong\n", wrong);
}

CASE(fork_of_a_fork)
{
	char *p = map(SIZE, PROT_READ | PROT_WRITE);
	int status;

	set(p, 1);
	pid_t child = fork();
	if (!child) {
		set(p, 2);
		pid_t grandchild = fork();
		if (!grandchild) {
			int bad = differing(p, 2);

			set(p, 3);
			_exit(bad + differing(p, 3) ? 1 : 0);
		}
		waitpid(grandchild, &status, 0);
		_exit(status || differing(p, 2) ? 1 : 0);
	}
	waitpid(child, &status, 0);
	printf("%d %d\n", status, differing(p, 1));
}

/* Parent and child pass a number to and fro in shared memory. */
static long futex(volatile int *at, int op, int value) { return syscall(SYS_futex, at, op, value, 0, 0, 0); }

static int pass(volatile int *turn, int mine, int rounds)
{
	for (int i = 0; i < rounds; i++) {
		while (__atomic_load_n(turn, __ATOMIC_ACQUIRE) % 2 != mine)
			futex(turn, FUTEX_WAIT, 1 - mine + (*turn & ~1));
		if (*turn != 2 * i + mine)
			return 1;
		__atomic_store_n(turn, *turn + 1, __ATOMIC_RELEASE);
		futex(turn, FUTEX_WAKE, 1);
	}
	return 0;
}

CASE(shared_memory)
{
	volatile int *turn = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status;

	must(turn != MAP_FAILED, "mmap");
	pid_t child = fork();
	if (!child)
		_exit(pass(turn, 1, 500));
	int wrong = pass(turn, 0, 500);
	waitpid(child, &status, 0);
	printf("%d %d %d\n", *turn, wrong, status);
}

CASE(vfork_shares_memory)
{
	static volatile int value;
	volatile int good = 0;

	for (volatile int i = 1; i <= 100; i++) {
		pid_t child = vfork();
		if (!child) {
			value = i;
			_exit(0);
		}
		good += value == i;
		waitpid(child, 0, 0);
	}
	printf("%d\n", good);
}

/* What one thread does to memory holds for the others at once. */
static volatile uint64_t *counter;
static volatile int faults, resume;

static void wait_for_access(int sig, siginfo_t *info, void *context)
{
	__atomic_add_fetch(&faults, 1, __ATOMIC_SEQ_CST);
	while (!resume)
		sched_yield();
}

static void *increase(void *unused)
{
	for (;;)
		++*counter;
	return 0;
}

CASE(protection_holds_at_once)
{
	pthread_t t;
	int wrong = 0;

	counter = map(4096, PROT_READ | PROT_WRITE);
	on(SIGSEGV, wait_for_access, 0);
	must(!pthread_create(&t, 0, increase, 0), "pthread_create");
	for (int i = 0; i < 30; i++) {
		while (*counter < 1000)
			sched_yield();
		resume = 0;
		must(!mprotect((void *)counter, 4096, PROT_READ), "mprotect");
		uint64_t was = *counter;
		while (!faults)
			sched_yield();
		wrong += *counter != was;
		faults = 0;
		must(!mprotect((void *)counter, 4096, PROT_READ | PROT_WRITE), "mprotect");
		*counter = 0;
		resume = 1;
	}
	printf("%d wrong\n", wrong);
}

CASE(large_reservations)
{
	enum { SPOTS = 64 };
	const size_t size = 1ul << 40;
	volatile char *p = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int wrong = 0;

	must(p != MAP_FAILED, "mmap");
	for (int i = 0; i < SPOTS; i++)
		p[i * (size / SPOTS) + i] = i;
	for (int i = 0; i < SPOTS; i++)
		wrong += p[i * (size / SPOTS) + i] != i;
	must(!munmap((void *)p, size), "munmap");
	printf("%d wrong\n", wrong);
}

__attribute__((noinline)) static int deep(size_t size)
{
	volatile char *p = alloca(size);
	int sum = 0;

	for (size_t i = 0; i < size; i += 4096) /* from the far end */
		p[i] = 1;
	for (size_t i = 0; i < size; i += 4096)
		sum += p[i];
	return sum;
}

CASE(stack_grows) { printf("%d\n", deep(7 << 20)); }

CASE(heap_grows)
{
	char *low = sbrk(0);
	int wrong = 0;

	for (int i = 0; i < 100; i++) {
		char *p = sbrk(100000);

		must(p != (void *)-1, "sbrk");
		memset(p, i, 100000);
	}
	for (int i = 0; i < 100; i++)
		wrong += low[i * 100000 + 99999] != (char)i;
	printf("%d wrong, %d\n", wrong, (char *)sbrk(0) - low == 100 * 100000);
}

/* Processes that end while their asynchronous reads are under way. */
CASE(aio_and_exit)
{
	enum { READS = 128, LENGTH = 256 };
	static char buf[READS][LENGTH];
	static struct iocb reads[READS], *list[READS];
	char name[] = "/tmp/conform-XXXXXX";
	int fd = mkstemp(name), wrong = 0, status;

	must(fd >= 0 && !unlink(name) && !ftruncate(fd, LENGTH), "a file");
	for (int i = 0; i < READS; i++) {
		reads[i] = (struct iocb){ .aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = fd, .aio_buf = (long)buf[i], .aio_nbytes = LENGTH };
		list[i] = &reads[i];
	}
	for (int round = 0; round < 30; round++) {
		for (int i = 0; i < 10; i++) {
			if (!fork()) {
				aio_context_t context = 0;
				_exit(syscall(SYS_io_setup, READS, &context) || syscall(SYS_io_submit, context, READS, list) != READS);
			}
		}
		for (int i = 0; i < 10; i++)
			wrong += wait(&status) < 0 || status != 0;
	}
	printf("%d wrong\n", wrong);
}
