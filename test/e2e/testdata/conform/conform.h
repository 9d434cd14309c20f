/* A program that shows how a machine treats it, in named cases. A case writes
 * lines that are the same on each run on Linux: no address, no process number,
 * no time. What it does to its process ends with it: one case, one process. */
#ifndef CONFORM_H
#define CONFORM_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "../probe/probe.h"

struct conform_case {
	const char *name;
	void (*run)(void);
	struct conform_case *next;
};

void register_case(struct conform_case *c);

#define CASE(id) \
	static void run_##id(void); \
	static struct conform_case case_##id = { #id, run_##id, 0 }; \
	__attribute__((constructor)) static void register_##id(void) { register_case(&case_##id); } \
	static void run_##id(void)

/* Ends the program when a step that every Linux can do failed. */
void must(int ok, const char *what);

/* Memory of the given protection. */
void *map(size_t size, int protection);

/* Installs a handler. */
void on(int sig, void (*handler)(int, siginfo_t *, void *), int flags);

/* A system call without libc and its variables. */
static inline long raw(long nr, long a, long b, long c)
{
	long ret;

	__asm__ volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
	return ret;
}

/* Code as programs have it: mapped privately from a file, not writable. */
unsigned char *text(const void *code, size_t size);

enum { SITE_AT = 64 }; /* where in its page new_site and written_site put a site */

/* A call site in text of its own. */
unsigned char *new_site(enum shape s, unsigned nr);

/* A call site in memory of its own that the program may write. */
unsigned char *written_site(enum shape s, unsigned nr);

/* Calls a site with rax (for shapes that do not set it) and three arguments. */
long call_site(const void *site, long rax, long a, long b, long c);

/* Calls it often enough that an engine has done to it what it ever does. */
void warm(const void *site, long rax);

#define EACH_SHAPE(s) for (enum shape s = 0; s < SHAPES; s++)

/* The name of a signal without "SIG". */
#define NAME(sig) sigabbrev_np(sig)

#endif
