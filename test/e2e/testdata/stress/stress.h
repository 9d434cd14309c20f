/* A program that is hard on an execution engine: threads that compare all
 * registers before and after system calls, fault, map, signal, time, fork and
 * exec, all at once. It ends after a time with "ok" and counts, or at once with
 * what went wrong. */
#ifndef STRESS_H
#define STRESS_H

#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../probe/probe.h"

extern volatile int stop;	  /* all threads look at it */
extern volatile int own_gs;	  /* one thread may have a GS base of its own */
extern volatile int same_place;	  /* new code may come where other code was */
extern volatile int middle;	  /* some may jump to the syscall instruction of a site */
extern volatile int read_back;	  /* some read sites while others run them */
extern volatile int children;	  /* as many as can be, and of all kinds */
extern const char *program;	  /* this one, for exec */

/* What has been done. */
enum { CALLS, SITES, FAULTS, SIGNALS, TIMERS, FORKS, EXECS, VFORKS, SPAWNS, READS, PASSES, TERMS, COUNTS };
extern const char *const count_names[COUNTS];
void count(int what, long by);
long counted(int what);

/* Ends the program with a message, printf-like. */
void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Fails, with errno, unless ok. */
void must(int ok, const char *what);

/* Calls code through a probe with registers that follow from seed, and fails
 * when something changed. want: the system call's result; site < 0: no call. */
void check(const void *code, int site, uint64_t rax, long want, uint64_t seed, uint64_t flags);

/* Code mapped privately from a file, as programs are; at: where, or NULL. */
unsigned char *text(void *at, const void *code, size_t size);

/* The next of a thread's random numbers. */
uint64_t rnd(void);

/* Starts a thread. */
pthread_t spawn(void *(*f)(void *), void *arg);

/* Each part starts its threads, and waits for them when stop is set. Signals
 * end before that, while all threads still are there to get the last. */
void start_calls(void), end_calls(void);     /* calls.c */
void start_memory(void), end_memory(void);   /* memory.c */
void prepare_handlers(void), start_signals(void), end_signals(void), end_computing(void); /* signals.c */
void start_others(void), end_others(void);   /* others.c */

/* A thread that gets signals: calls this first. */
void receive_signals(void);

/* What a child does after fork or exec; returns its exit code. */
int child(void);
enum { CHILD_OK = 7 };

#endif
