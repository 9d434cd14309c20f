/* Children by fork, vfork and exec, and threads that wait for each other. */
#include "stress.h"

#include <spawn.h>

extern char **environ;

enum { FORKERS = 2 };

static pthread_t forkers[FORKERS], spawner, vforker, executer, ends[2], lockers[2];

/* One of the sites is called so often that an engine changes it. */
int child(void)
{
	unsigned char code[SITE_MAX];
	enum shape often = getpid() % SHAPES;

	for (enum shape s = 0; s < SHAPES; s++) {
		put_site(code, s, SYS_getuid);
		unsigned char *site = text(0, code, sizeof code);
		for (int i = 0; i < (s == often ? 60 : 3); i++)
			check(site, s, SYS_getuid, getuid(), i, 0);
		munmap(site, sizeof code);
	}
	return CHILD_OK;
}

static void reap(pid_t pid, const char *what)
{
	int status;
	pid_t got;

	while ((got = waitpid(pid, &status, 0)) < 0 && errno == EINTR)
		;
	if (got != pid || !WIFEXITED(status) || WEXITSTATUS(status) != CHILD_OK)
		fail("%s: waitpid gave %d, status %#x", what, got, status);
}

/* Forks inside a probe: the registers of parent and child. */
static void *forks(void *arg)
{
	unsigned char code[SITE_MAX];
	unsigned char *sites[SHAPES];

	for (enum shape s = 0; s < SHAPES; s++) {
		put_site(code, s, SYS_fork);
		sites[s] = text(0, code, sizeof code);
	}
	for (int i = (long)arg; i == (long)arg || !stop; i++) {
		struct state in, out;
		enum shape s = i % SHAPES;

		fill(&in, i, i % 2 ? DF : 0);
		in.gpr[RAX] = SYS_fork;
		probe(&in, &out, sites[s], vectors());
		const char *difference = differs(&in, &out, vectors(), compares(s));
		pid_t pid = out.gpr[RAX];
		if (pid == 0)
			_exit(difference ? 1 : child());
		if (pid < 0 || difference)
			fail("fork: %d, %s", pid, difference ? difference : "");
		reap(pid, "a forked child");
		count(FORKS, 1);
	}
	return 0;
}

/* Three ways to execute this program as a child, each at least once. posix_spawn
 * is clone with the parent's memory and a stack of its own. */
static char *args[] = { 0, "child", 0 };

static void *executes(void *arg)
{
	do {
		pid_t pid = fork();

		must(pid >= 0, "fork");
		if (!pid) {
			execve(program, args, environ);
			_exit(1);
		}
		reap(pid, "a child of fork and exec");
		count(EXECS, 1);
	} while (!stop);
	return 0;
}

static void *vforks(void *arg)
{
	do {
		pid_t pid = vfork();

		must(pid >= 0, "vfork");
		if (!pid) {
			execve(program, args, environ);
			_exit(1);
		}
		reap(pid, "a child of vfork and exec");
		count(VFORKS, 1);
	} while (!stop);
	return 0;
}

static void *spawns(void *arg)
{
	do {
		pid_t pid;

		errno = posix_spawn(&pid, program, 0, 0, args, environ);
		must(!errno, "posix_spawn");
		reap(pid, "an executed child");
		count(SPAWNS, 1);
	} while (!stop);
	return 0;
}

/* Two threads pass a number to and fro through pipes. */
static int to[2], fro[2];

static void pass(int in, int out, uint64_t first)
{
	receive_signals();
	for (uint64_t n = first, got;; n += 2) {
		if (first == 0) {
			uint64_t next = stop ? (uint64_t)-1 : n;
			must(write(out, &next, 8) == 8, "write");
			if (next != n)
				return;
		}
		must(read(in, &got, 8) == 8, "read"); /* SA_RESTART: never EINTR */
		if (got == (uint64_t)-1)
			return;
		if (got != (first ? n - 1 : n + 1))
			fail("a pipe gave %lu, not %lu", got, first ? n - 1 : n + 1);
		if (first)
			must(write(out, &n, 8) == 8, "write");
		count(PASSES, 1);
	}
}

static void *one_end(void *arg)
{
	pass(fro[0], to[1], 0);
	return 0;
}

static void *other_end(void *arg)
{
	pass(to[0], fro[1], 1);
	return 0;
}

/* Two threads count under one lock. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long under_lock, added[2];

static void *locks(void *arg)
{
	receive_signals();
	while (!stop) {
		pthread_mutex_lock(&lock);
		long n = under_lock;
		if (n % 64 == 0)
			sched_yield(); /* that the other one waits */
		under_lock = n + 1;
		pthread_mutex_unlock(&lock);
		added[(long)arg]++;
	}
	return 0;
}

void start_others(void)
{
	must(!pipe(to) && !pipe(fro), "pipe");
	ends[0] = spawn(one_end, 0);
	ends[1] = spawn(other_end, 0);
	for (long i = 0; i < 2; i++)
		lockers[i] = spawn(locks, (void *)i);
	args[0] = (char *)program;
	for (long i = 0; i < (children ? FORKERS : 1); i++)
		forkers[i] = spawn(forks, (void *)i);
	spawner = spawn(spawns, 0);
	if (children) {
		executer = spawn(executes, 0);
		vforker = spawn(vforks, 0);
	}
}

void end_others(void)
{
	for (int i = 0; i < 2; i++) {
		pthread_join(ends[i], 0);
		pthread_join(lockers[i], 0);
	}
	for (int i = 0; i < (children ? FORKERS : 1); i++)
		pthread_join(forkers[i], 0);
	pthread_join(spawner, 0);
	if (children) {
		pthread_join(executer, 0);
		pthread_join(vforker, 0);
	}
	if (under_lock != added[0] + added[1])
		fail("%ld counted under a lock, %ld added", under_lock, added[0] + added[1]);
}
